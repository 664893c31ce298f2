"""A machine that restarts comes back to work by itself."""

from __future__ import annotations

import urllib.request

import pytest
from support.wait import wait_until
from system import System


def all_run(system: System, names: set[str]) -> bool:
    programs = system.programs()
    return {program.name for program in programs} == names and all(program.state == "RUNNING" for program in programs)


@pytest.mark.timeout(300)
def test_everything_comes_back_after_a_restart(system):
    if not system.has_systemd:
        pytest.skip("this host has no init system that would start anything")
    before = {program.name for program in system.programs()}
    assert before
    system.restart()
    wait_until(lambda: all_run(system, before), 120, f"all of {sorted(before)} RUNNING after the restart")
    wait_until(system.proves_itself, 60, "a task going to the worker and back after the restart")
    assert urllib.request.urlopen(f"{system.url}/healthz", timeout=10).status == 200
    # Tasks go to the worker and back a moment before systemd has heard of the last unit that it started.
    assert system.output("systemctl is-system-running --wait") == "running"
