"""`make down`, the last test of every host: what the kit made is gone, and nothing that it started still runs."""

from __future__ import annotations

import pytest
from support.control import play
from support.host import APP

PATHS = (
    f"/srv/{APP}",
    f"/etc/{APP}",
    f"/var/log/{APP}",
    f"/var/lib/{APP}",
    f"/run/{APP}",
    "/var/lib/celery-ops",
    f"/usr/local/bin/{APP}",
    f"/usr/local/bin/{APP}ctl",
    f"/etc/sudoers.d/celery-ops-{APP}",
)
PACKAGES = ("rabbitmq-server", "redis-server", "supervisor", "erlang-base")
# What has ended and nobody has waited for, as in a container without an init, is not counted.
SERVICES = "[b]eam.smp|[r]edis-server|[s]upervisord|[e]pmd|[c]elery|[g]unicorn"
RUNNING = f"ps -e -o stat=,args= | grep -v '^Z' | grep -E '{SERVICES}'"
ALL = {"uninstall_confirm": "yes", "uninstall_services": "yes"}


@pytest.mark.timeout(60)
def test_nothing_is_removed_unless_somebody_says_yes(host):
    before = host.programs()
    run = play("uninstall", host)
    assert run.rc != 0
    assert "Nothing was removed" in run.text
    assert host.programs() == before
    assert [path for path in PATHS if not host.testinfra.file(path).exists] == []
    assert host.run(RUNNING).stdout


# With systemd, on Debian 13, it is the last test of scenario two_apps.
@pytest.mark.only_on("bare")
@pytest.mark.timeout(300)
def test_afterwards_nothing_is_left_and_nothing_runs(host):
    run = play("uninstall", host, **ALL)
    assert run.rc == 0, run.text[-4000:]
    left = [path for path in PATHS if host.testinfra.file(path).exists]
    assert left == []
    assert [name for name in PACKAGES if host.testinfra.package(name).is_installed] == []
    assert not host.testinfra.user(APP).exists
    assert not host.testinfra.group(f"{APP}-ops").exists
    assert host.run(RUNNING).stdout == ""


@pytest.mark.only_on("bare")
@pytest.mark.timeout(300)
def test_a_second_time_there_is_nothing_to_do_and_somebody_elses_group_stays(host):
    host.output(f"groupadd --system {APP}-ops")
    again = play("uninstall", host, **ALL)
    assert again.rc == 0, again.text[-4000:]
    assert again.changed == {host.name: 0}
    host.output(f"groupdel {APP}-ops")
