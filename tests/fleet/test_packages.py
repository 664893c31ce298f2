"""RabbitMQ from a package source of the inventory's own, on a cluster: never by site.yml, then node by node under load.

The source is a repository on the first broker's host. It has Debian's package with another version number.
"""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from support.cluster import await_whole
from support.control import play
from support.load import Load, reconciled
from support.long import LONG
from support.wait import wait_until

PORT = 8099
REPOSITORY = "/opt/rabbitmq-repository"
SINCE = "systemctl show --property=ActiveEnterTimestamp rabbitmq-server"
REPACK = """
set -e
rm -rf {repository} && mkdir -p {repository} && cd {repository}
apt-get -qq update && apt-get -qq download rabbitmq-server
dpkg-deb -R rabbitmq-server_*.deb unpacked && rm rabbitmq-server_*.deb
sed -i 's/^Version: .*/Version: {version}/' unpacked/DEBIAN/control
dpkg-deb -b unpacked rabbitmq-server.deb >/dev/null && rm -r unpacked
dpkg-deb -f rabbitmq-server.deb
echo "Filename: ./rabbitmq-server.deb"
echo "Size: $(stat -c %s rabbitmq-server.deb)"
echo "SHA256: $(sha256sum rabbitmq-server.deb | cut -d' ' -f1)"
"""


def installed(host, package="rabbitmq-server"):
    return host.output(f"dpkg-query --show --showformat '${{Version}}' {package}")


@pytest.fixture
def source(brokers, tmp_path):
    """What the inventory says of a signed repository on the first broker, with a version that no host has."""
    hub = brokers[0]
    version = f"{installed(hub)}.again"
    index = hub.output(REPACK.format(repository=REPOSITORY, version=version)) + "\n"
    digest = hashlib.sha256(index.encode()).hexdigest()
    (tmp_path / "Release").write_text(f"Suite: ./\nSHA256:\n {digest} {len(index.encode())} Packages\n")
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)

    def gpg(*words):
        command = ["gpg", "--homedir", home, "--batch", "--yes", "--passphrase", "", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    gpg("--quick-generate-key", "repository", "ed25519", "sign", "never")
    gpg("--clearsign", "--output", "InRelease", "Release")
    (tmp_path / "key.asc").write_text(gpg("--armor", "--export"))
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    hub.output(f"cat > {REPOSITORY}/Packages", stdin=index)
    hub.output(f"cat > {REPOSITORY}/InRelease", stdin=(tmp_path / "InRelease").read_text())
    hub.output(f"systemd-run --unit rabbitmq-repository -p WorkingDirectory={REPOSITORY} python3 -m http.server {PORT}")
    yield {
        "uris": [f"http://{hub.address}:{PORT}"],
        "suite": "./",
        "key": str(tmp_path / "key.asc"),
        "server": version,
        "erlang": installed(hub, "erlang-base"),
    }
    hub.output(f"systemctl stop rabbitmq-repository; rm -r {REPOSITORY}")
    for host in brokers:
        host.output("rm -f /etc/apt/sources.list.d/celery-ops-rabbitmq.sources; apt-get -qq update")


@LONG
@pytest.mark.timeout(900)
def test_an_upgrade_goes_node_by_node_and_never_by_site(brokers, workers, source):
    before = {host: installed(host) for host in brokers}
    site = play("site", options=["--tags", "rabbitmq"], rabbitmq_packages=source)
    assert site.rc == 0, site.text[-4000:]
    assert {host: installed(host) for host in brokers} == before
    assert "An installed broker is never upgraded" in site.words, site.text[-3000:]
    assert "rabbitmq_restart.yml -e rabbitmq_upgrade=true" in site.words
    load = Load(workers[0], "upgraded-brokers")
    wait_until(load.begun, 60, "tasks of the load")
    upgrade = play("rabbitmq_restart", rabbitmq_packages=source, rabbitmq_upgrade=True)
    assert upgrade.rc == 0, upgrade.text[-4000:]
    await_whole(brokers)
    assert {host: installed(host) for host in brokers} == dict.fromkeys(brokers, source["server"])
    numbers = reconciled(load, workers)
    print(numbers)
    assert numbers["lost"] == [], numbers
    since = {host: host.output(SINCE) for host in brokers}
    again = play("rabbitmq_restart", rabbitmq_packages=source, rabbitmq_upgrade=True)
    assert again.rc == 0, again.text[-3000:]
    assert {host: host.output(SINCE) for host in brokers} == since, "there is nothing to upgrade"
