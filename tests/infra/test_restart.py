"""A machine that restarts comes back to work by itself."""

from __future__ import annotations

import urllib.request

import pytest
from support.control import play
from support.host import Host
from support.wait import wait_until


def all_run(host: Host, names: set[str]) -> bool:
    programs = host.programs()
    return {program.name for program in programs} == names and all(program.state == "RUNNING" for program in programs)


@pytest.mark.only_on("trixie")
@pytest.mark.timeout(300)
def test_everything_comes_back_after_a_restart(host):
    before = {program.name for program in host.programs()}
    assert before
    host.restart()
    wait_until(lambda: all_run(host, before), 120, f"all of {sorted(before)} RUNNING after the restart")
    wait_until(host.task_comes_back, 60, "a task going to the worker and back after the restart")
    assert urllib.request.urlopen(f"{host.url}/healthz", timeout=10).status == 200
    # Tasks go to the worker and back a moment before systemd has heard of the last unit that it started.
    assert host.output("systemctl is-system-running --wait") == "running"


@pytest.mark.only_on("trixie")
@pytest.mark.timeout(240)
def test_a_broker_that_is_alone_is_restarted_by_its_playbook(host):
    before = host.output("systemctl show --property=MainPID rabbitmq-server")
    restart = play("rabbitmq_restart", host)
    assert restart.rc == 0, restart.text[-3000:]
    assert host.output("systemctl show --property=MainPID rabbitmq-server") != before
    wait_until(host.task_comes_back, 90, "a task's round trip")
