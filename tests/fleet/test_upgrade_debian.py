"""A host with programs goes from Debian 12 to 13: the next site.yml makes virtualenvs of its Python, and hands over.

One of the last files of the scenario: the host stays what it has become.
"""

from __future__ import annotations

import pytest
from support.control import deployed, play
from support.host import APP, CURRENT
from support.load import Load, reconciled
from support.long import LONG
from support.wait import wait_until

UPGRADE = """
set -e
export DEBIAN_FRONTEND=noninteractive
sed -i s/bookworm/trixie/g $(grep -rl bookworm /etc/apt/sources.list /etc/apt/sources.list.d)
apt-get -q update
apt-get -q -y -o Dpkg::Options::=--force-confold full-upgrade
apt-get -q -y --purge autoremove
"""


def python_of(host):
    """The version of the Python of the release that runs on a host."""
    return host.ask(f"{CURRENT}/venv/bin/python -c 'import sys; print(\"%s.%s\" % sys.version_info[:2])'")


@LONG
@pytest.mark.timeout(2400)
def test_a_worker_host_goes_to_the_next_debian_and_back_to_the_release_before(hub, workers, brokers, variants):
    [upgraded] = [host for host in workers if host not in brokers]
    [other] = [host for host in workers if host is not upgraded]
    first, second = hub.current(), {"celery_app_source": str(variants.make("before-the-upgrade"))}
    deployed(**second)
    assert python_of(upgraded) == "3.11"
    load = Load(other, "upgraded")
    wait_until(load.begun, 60, "tasks of the load")
    upgraded.output(UPGRADE)
    upgraded.output("systemctl daemon-reload; systemctl restart supervisor")  # as the reboot that ends an upgrade
    assert upgraded.run(f"{CURRENT}/venv/bin/python -c 'import celery'").rc != 0, "its Python has none of its packages"

    site = play("site", **second)
    assert site.rc == 0, site.text[-6000:]
    assert python_of(upgraded) == "3.13"
    wait_until(lambda: not upgraded.amiss(), 60, f"one set of programs: {upgraded.amiss()}")
    wait_until(lambda: hub.consumers() == len(workers), 60, "a consumer on each worker host")
    again = play("site", **second)
    assert again.rc == 0 and not any(again.changed.values()), again.text[-4000:]

    back = play("rollback", **second)
    assert back.rc == 0, back.text[-6000:]
    for host in (hub, *workers):
        assert host.current() == first
    assert python_of(upgraded) == "3.13"
    wait_until(lambda: not upgraded.amiss(), 60, f"one set of programs: {upgraded.amiss()}")
    numbers = reconciled(load, workers)
    print(numbers)
    assert numbers["lost"] == [], numbers
    assert upgraded.ask(f"ls /srv/{APP}/releases/{first}/venv/bin/python")
