"""`make down`, the last test of every host: what the kit made is gone, and nothing that it started still runs."""

from __future__ import annotations

import pytest
from system import APP

FOLDERS = (
    f"/srv/{APP}",
    f"/etc/{APP}",
    f"/var/log/{APP}",
    f"/var/lib/{APP}",
    f"/run/{APP}",
    "/var/lib/celery-ops",
    f"/usr/local/bin/{APP}",
)
PACKAGES = ("rabbitmq-server", "redis-server", "supervisor", "erlang-base")
# What has ended and nobody has waited for, as in a container without an init, is not counted.
SERVICES = "[b]eam.smp|[r]edis-server|[s]upervisord|[e]pmd|[c]elery|[g]unicorn"
RUNNING = f"ps -e -o stat=,args= | grep -v '^Z' | grep -E '{SERVICES}'"
ALL = ("-e", "uninstall_confirm=yes", "-e", "uninstall_services=yes")


@pytest.mark.timeout(60)
def test_nothing_is_removed_unless_somebody_says_yes(system):
    before = system.programs()
    run = system.play("uninstall")
    assert run.returncode != 0
    assert "Nothing was removed" in run.stdout
    assert system.programs() == before


@pytest.mark.timeout(300)
def test_afterwards_nothing_is_left_and_nothing_runs(system):
    run = system.play("uninstall", *ALL)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    left = [folder for folder in FOLDERS if system.host.file(folder).exists]
    assert left == []
    assert [name for name in PACKAGES if system.host.package(name).is_installed] == []
    assert not system.host.user(APP).exists
    assert system.run(RUNNING).stdout == ""
    again = system.play("uninstall", *ALL)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr
