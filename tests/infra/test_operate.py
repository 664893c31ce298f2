"""supervisorctl does what an operator expects, for each of the three programs."""

from __future__ import annotations

import json

import pytest
from support.host import KINDS, Host, Program
from support.wait import wait_until

each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.only_on("bare")


def pid_in(host: Host, pidfile: str) -> str:
    """Returns what a pidfile holds; nothing when there is none."""
    return host.run(f"cat {pidfile}").stdout.strip()


def running(host: Host, kind: str, other_than: int | None = None) -> Program:
    """Waits until the program runs, with another pid than before, and has its pidfile; returns it.

    Supervisor calls it RUNNING after a fixed time; on a busy machine it then still loads what it needs.
    """

    def it_runs() -> Program | None:
        program = host.program(kind)
        runs = program.state == "RUNNING" and program.pid != other_than
        return program if runs and pid_in(host, program.pidfile) == str(program.pid) else None

    return wait_until(it_runs, 40, f"{kind} RUNNING again with a pid other than {other_than}")


@pytest.fixture
def program(host, kind):
    """The running program of a kind; it is left running, whatever happens to it in the test."""
    before = running(host, kind)
    yield before
    host.run(f"supervisorctl start {before.name}")
    running(host, kind)


def test_status_is_zero_while_all_run(host):
    assert host.run("supervisorctl status").rc == 0
    assert {program.state for program in host.programs()} == {"RUNNING"}


@each_kind
def test_its_pidfile_names_the_main_process(host, program, kind):
    file = host.testinfra.file(program.pidfile)
    assert int(file.content_string) == program.pid
    assert file.user == "petct"
    assert "/srv/petct/releases/" in host.output(f"tr '\\0' ' ' < /proc/{program.pid}/cmdline")


@each_kind
@pytest.mark.timeout(180)
def test_stop_start_restart_and_the_pidfile_goes_and_comes_with_it(host, program, kind):
    assert "stopped" in host.output(f"supervisorctl stop {program.name}")
    status = host.run(f"supervisorctl status {program.name}")
    assert (status.rc, status.stdout.split()[1]) == (3, "STOPPED")
    assert host.run(f"kill -0 {program.pid}").rc != 0, "the process is still there"
    assert not host.testinfra.file(program.pidfile).exists

    assert "started" in host.output(f"supervisorctl start {program.name}")
    started = running(host, kind, other_than=program.pid)

    done = host.output(f"supervisorctl restart {program.name}")
    assert "stopped" in done
    assert "started" in done
    running(host, kind, other_than=started.pid)
    wait_until(host.task_comes_back, 30, "a task going to the worker and back after the restart")


@each_kind
@pytest.mark.timeout(180)
def test_it_comes_back_when_killed(host, program, kind):
    host.output(f"kill -9 {program.pid}")
    running(host, kind, other_than=program.pid)
    wait_until(host.task_comes_back, 40, "a task going to the worker and back after the kill")


@each_kind
def test_a_second_one_on_the_same_pidfile_is_refused(host, program, kind):
    second = host.run(f"cd / && timeout 30 {host.command_of(program)}")
    assert second.rc == 73, second.stdout + second.stderr
    assert str(program.pid) in second.stderr
    assert host.program(kind) == program
    assert pid_in(host, program.pidfile) == str(program.pid)


def test_queues_are_counted_over_amqp_with_no_more_than_the_applications_access(host):
    said = json.loads(host.output(host.in_release("celery-ops-queues -A petct petct petct.dead none:such")))
    assert said["asked"] and said["reason"] == ""
    assert said["queues"]["petct"]["consumers"] >= 1 and said["queues"]["petct.dead"]["consumers"] == 0
    assert said["queues"]["none:such"] is None
