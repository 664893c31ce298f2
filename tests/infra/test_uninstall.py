"""`make down`, the last test of every host: what the kit made is gone, and nothing that it started still runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import EPHEMERAL
from system import APP, System

ROOT = Path(__file__).parents[2]
FOLDERS = (f"/srv/{APP}", f"/etc/{APP}", f"/var/log/{APP}", f"/var/lib/{APP}", f"/run/{APP}", "/var/lib/celery-ops")
PACKAGES = ("rabbitmq-server", "redis-server", "supervisor", "erlang-base")
# What has ended and nobody has waited for, as in a container without an init, is not counted.
SERVICES = "[b]eam.smp|[r]edis-server|[s]upervisord|[e]pmd|[c]elery|[g]unicorn"
RUNNING = f"ps -e -o stat=,args= | grep -v '^Z' | grep -E '{SERVICES}'"


def uninstall(system: System, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs playbooks/uninstall.yml for the host, with nobody there to answer a question."""
    inventory = ("-i", str(EPHEMERAL / "inventory"), "--limit", system.name)
    secrets = ("-e", f"celery_app_secrets_dir={EPHEMERAL}/secrets")
    return subprocess.run(
        ("ansible-playbook", *inventory, *secrets, *options, "playbooks/uninstall.yml"),
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(60)
def test_nothing_is_removed_unless_somebody_says_yes(system):
    before = system.programs()
    run = uninstall(system)
    assert run.returncode != 0
    assert "Nothing was removed" in run.stdout
    assert system.programs() == before


@pytest.mark.timeout(300)
def test_afterwards_nothing_is_left_and_nothing_runs(system):
    run = uninstall(system, "-e", "uninstall_confirm=yes")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    left = [folder for folder in FOLDERS if system.host.file(folder).exists]
    assert left == []
    assert [name for name in PACKAGES if system.host.package(name).is_installed] == []
    assert not system.host.user(APP).exists
    assert system.run(RUNNING).stdout == ""
    again = uninstall(system, "-e", "uninstall_confirm=yes")
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr
