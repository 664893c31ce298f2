"""Who can reach, read and change what."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.host import APP, CURRENT, PORT, Host

LOOPBACK = re.compile(r"^(127\.|\[::1\]|\[::ffff:127\.)")
READABLE_PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"


@pytest.fixture
def patterns(host, secrets):
    """A file on the host that holds the secrets for `grep -f`, so that they are on no command line."""
    file = "/root/.secrets-to-look-for"
    write = ("docker", "exec", "-i", host.name, "sh", "-c", f"umask 077; cat > {file}")
    subprocess.run(write, input="\n".join(secrets.values()), text=True, check=True)
    yield file
    host.output(f"rm {file}")


def found_in(host: Host, patterns: str, files: str) -> list[str]:
    """Returns which of the files (as a shell glob) hold a secret."""
    return host.run(f"grep -a -l -s -F -f {patterns} -- {files}").stdout.split()


def test_only_the_web_program_is_reached_from_outside(host):
    listening = [line.split()[3] for line in host.output("ss -Hltn").splitlines()]
    ports = {address.rpartition(":")[2] for address in listening}
    assert {"5672", "6379", str(PORT)} <= ports
    assert [a for a in listening if not LOOPBACK.match(a)] == [f"0.0.0.0:{PORT}"]


def test_guest_is_gone(host):
    users = host.output("rabbitmqctl -q list_users").split("\n")
    assert [user.split()[0] for user in users if user.split()[0] in (APP, "guest")] == [APP]
    assert host.run("rabbitmqctl authenticate_user guest guest").rc != 0


def test_the_applications_broker_user_is_confined_to_its_vhost(host):
    assert host.output(f"rabbitmqctl -q list_user_permissions {APP}").splitlines()[-1].split()[0] == APP
    assert f"{APP}\t[]" in host.output("rabbitmqctl -q list_users")


def test_anonymous_redis_is_refused(host):
    assert "NOAUTH" in host.output("redis-cli -h 127.0.0.1 ping 2>&1")


def test_only_root_talks_to_supervisord(host):
    socket = host.testinfra.file("/run/supervisor.sock")
    assert (socket.user, socket.mode) == ("root", 0o700)
    assert host.run(f"runuser -u {APP} -- supervisorctl status").rc != 0
    assert "inet_http_server" not in host.output("cat /etc/supervisor/supervisord.conf")


def test_only_root_and_the_application_read_its_environment(host):
    file = host.testinfra.file(host.output(f"readlink -f /etc/{APP}/env"))
    assert (file.user, file.group, file.mode) == ("root", APP, 0o640)
    assert host.run(f"runuser -u nobody -- cat /etc/{APP}/env").rc != 0


def test_the_application_cannot_change_its_own_release(host):
    def writable(places: str) -> list[str]:
        find = f"find -L {places} -writable"
        return host.ask(f"runuser -u {APP} -- {find} 2>/dev/null").splitlines()

    assert f"/srv/{APP}/shared" in writable(f"/srv/{APP}/shared"), "the search finds what is its own"
    assert writable(f"{CURRENT}/ /srv/{APP}/releases /etc/{APP} /etc/supervisor") == []


def test_programs_run_as_the_application(host):
    programs = host.programs()
    assert len(programs) > 3
    for program in programs:
        assert host.output(f"ps -o user= -p {program.pid}") == APP, program.name


def test_no_secret_is_on_a_command_line(host, patterns):
    assert found_in(host, patterns, "/proc/[0-9]*/cmdline") == []


def test_no_secret_is_in_a_log_or_conf(host, patterns):
    assert found_in(host, patterns, "-r /var/log /etc/supervisor") == []
    if host.has_systemd:
        assert host.run(f"journalctl --no-pager | grep -F -f {patterns}").stdout == ""


def test_no_secret_is_in_a_file_that_anyone_may_read(host, patterns):
    planted = "/var/tmp/planted"  # what the search has to find, and all that it may find
    host.output(f"install -m 0644 {patterns} {planted}")
    try:
        find = f"runuser -u nobody -- find {READABLE_PLACES} -xdev -type f -readable -print0 2>/dev/null"
        found = host.ask(f"{find} | xargs -0 -r grep -a -l -s -F -f {patterns}").split()
    finally:
        host.output(f"rm {planted}")
    assert found == [planted]


def test_no_secret_was_shown_by_ansible(secrets):
    log = os.environ.get("CELERY_OPS_LOG")
    if not log:
        pytest.skip("CELERY_OPS_LOG names no log of this run; `make test` does")
    text = Path(log).read_text(errors="replace")
    assert [name for name, value in secrets.items() if value in text] == []


def test_the_search_for_secrets_finds_them_where_they_belong(host, patterns):
    assert found_in(host, patterns, f"/etc/{APP}/env") == [f"/etc/{APP}/env"]
