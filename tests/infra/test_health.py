"""The watch on a real host: what is sick heals by itself, what is well is left alone."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from system import APP, CURRENT, System, wait_until

pytestmark = pytest.mark.timeout(150)


def heartbeat(system: System, kind: str) -> dict[str, Any]:
    """Returns the heartbeat of the one program of a kind that runs."""
    text = system.output(f"cat /run/{APP}/{system.program(kind).name}.heartbeat")
    return json.loads(text)


def watch(system: System) -> dict[str, Any]:
    """Returns the watch's own heartbeat."""
    return json.loads(system.output(f"cat /run/{APP}/{APP}-health-*.heartbeat"))


def verdict(system: System, kind: str) -> str | None:
    """Returns what the watch says of a program."""
    return watch(system)["programs"].get(system.program(kind).name, {}).get("state")


def said(system: System, words: str) -> bool:
    """Tells whether the watch that runs has said this."""
    [name] = [program.name for program in system.programs() if program.name.startswith(f"{APP}-health-")]
    return system.run(f"grep -qF -- {shlex.quote(words)} /var/log/{APP}/{name}.log").rc == 0


def state_of(system: System, pid: int) -> str:
    """Returns a process's state as in ps."""
    return system.run(f"ps -o stat= -p {pid}").stdout.strip()[:1]


def children(system: System, pid: int) -> list[int]:
    """Returns the pool processes of a worker."""
    return [int(child) for child in system.output(f"ps -o pid= --ppid {pid}").split()]


def runs_well(system: System) -> None:
    """Waits until worker and scheduler are what they should be."""
    for kind in ("worker", "scheduler"):
        wait_until(lambda kind=kind: verdict(system, kind) in ("ready", "busy"), 40, f"the watch calling {kind} ready")


@pytest.fixture(autouse=True)
def well(system):
    """Every test begins and ends with a system that is well."""
    runs_well(system)
    yield
    runs_well(system)


def test_heartbeats_tell_the_truth(system):
    worker, scheduler = heartbeat(system, "worker"), heartbeat(system, "scheduler")
    assert worker["pid"] == system.program("worker").pid
    assert scheduler["pid"] == system.program("scheduler").pid
    assert (worker["broker"], worker["connected"]) == ("amqp://127.0.0.1:5672", True)
    assert worker["queues"] == {APP: True}
    assert (worker["pool"], worker["slots"]) == ("prefork", 2)
    assert worker["accepted"] > 0
    assert watch(system)["orphans"] == []


def test_a_frozen_pool_and_a_frozen_scheduler_go_on(system):
    worker, scheduler = system.program("worker").pid, system.program("scheduler").pid
    stopped = [*children(system, worker), scheduler]
    assert len(stopped) == 3
    system.output(f"kill -STOP {' '.join(map(str, stopped))}")
    assert {state_of(system, pid) for pid in stopped} == {"T"}
    wait_until(lambda: {state_of(system, pid) for pid in stopped} == {"S"}, 20, "all of them going on")
    assert system.proves_itself()
    assert (system.program("worker").pid, system.program("scheduler").pid) == (worker, scheduler)
    assert said(system, "2 of its pool processes are stopped (state T): SIGCONT sent")
    assert said(system, f"its main process is stopped (state T): SIGCONT sent to {scheduler}")


def test_a_broker_that_is_away_is_waited_for(system):
    pids = [program.pid for program in system.programs()]
    system.output("rabbitmqctl stop_app")
    try:
        wait_until(lambda: verdict(system, "worker") == "broker away", 50, "the watch seeing it")
        assert heartbeat(system, "worker")["connected"] is False
        # Longer than the watch is patient with anything that it treats soon.
        seen = watch(system)["programs"][system.program("worker").name]["seconds"]
        wait_until(
            lambda: watch(system)["programs"][system.program("worker").name]["seconds"] > seen + 15, 30, "time to pass"
        )
    finally:
        system.output("rabbitmqctl start_app")
    runs_well(system)
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert [program.pid for program in system.programs()] == pids
    assert not said(system, "SIGTERM sent")
    assert not said(system, "SIGKILL sent")


def test_a_frozen_worker_goes_on(system):
    worker = system.program("worker").pid
    system.output(f"kill -STOP {worker}")
    assert state_of(system, worker) == "T"
    # It was treated before, so that the watch may wait half a minute longer this time.
    wait_until(lambda: state_of(system, worker) != "T", 45, "the worker going on")
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert system.program("worker").pid == worker
    assert said(system, f"its main process is stopped (state T): SIGCONT sent to {worker}")


def test_a_worker_with_wrong_credentials_comes_back_when_they_are_put_right(system, secrets):
    worker = system.program("worker")
    file = system.output(f"readlink -f /etc/{APP}/env")
    system.output(f"cp -p {file} {file}.right && sed -i 's/{secrets[f'{APP}_broker_password']}/wrong/' {file}")
    try:
        system.output(f"kill -KILL {worker.pid}")
        wait_until(lambda: system.program("worker").state == "BACKOFF", 30, "Supervisor trying again and again")
        wait_until(lambda: verdict(system, "worker") == "down", 20, "the watch saying so")
    finally:
        system.output(f"mv {file}.right {file}")
    wait_until(lambda: system.program("worker").state == "RUNNING", 40, "the worker coming back")
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert system.program("worker").name == worker.name


LOOK_ALIKES = {
    "of another user": f"{CURRENT}/venv/bin/python -c 'import time; time.sleep(300)' celery -A {APP} worker",
    "a sleep named celery": f"runuser -u {APP} -- bash -c 'exec -a {CURRENT}/venv/bin/celery sleep 300'",
    "a pager over celery": f"runuser -u {APP} -- tail -f {CURRENT}/venv/bin/celery",
    "a command of celery's": f"runuser -u {APP} -- {CURRENT}/venv/bin/python -c 'import time; time.sleep(300)' worker",
}


def test_an_orphan_is_drained_and_look_alikes_live(system):
    for command in LOOK_ALIKES.values():
        system.output(f"setsid {command} >/dev/null 2>&1 &")
    alike = "pgrep -f 'sleep.300|tail -f /srv'"
    wait_until(lambda: len(system.run(alike).stdout.split()) >= len(LOOK_ALIKES), 10, "the look-alikes")
    by_hand = system.in_release(
        f"celery -A {APP} worker -c 1 -Q {APP}.by-hand -n by-hand@%h --pidfile /tmp/by-hand.pid"
    )
    system.output(f"setsid {by_hand} >/dev/null 2>/tmp/by-hand.log &")
    try:
        pid = wait_until(lambda: system.run("cat /tmp/by-hand.pid").stdout.strip(), 20, "the worker started by hand")
        wait_until(lambda: state_of(system, int(pid)) == "", 20, "its end")
        assert said(system, f"pid {pid} (worker started by hand")
        assert len(system.run(alike).stdout.split()) >= len(LOOK_ALIKES)
    finally:
        system.run(f"{alike} | xargs kill; rm -f /tmp/by-hand.*; rabbitmqctl delete_queue -p {APP} {APP}.by-hand")


# Keeps the worker's queue from running empty for a minute; what loadArray does is all computing.
LOAD = f"""
import time
from {APP} import celery_app as app
from viewer.models import Record
record = Record.objects.get(userID="demo")
until = time.monotonic() + 62
with app.connection_for_write() as connection:
    channel = connection.default_channel
    while time.monotonic() < until:
        waiting = channel.queue_declare("{APP}", passive=True).message_count
        for _ in range(60 - waiting):
            arguments = [record.filepath, record.shape, record.dtype]
            app.send_task("loadArray", arguments, ignore_result=True, connection=connection)
        time.sleep(0.2)
"""


def test_a_worker_that_is_busy_all_the_time_is_left_alone(system):
    if system.has_systemd:
        pytest.skip("takes a minute, and it is the same everywhere: done on one host")
    pids = [program.pid for program in system.programs()]
    log = f"$(ls -t /var/log/{APP}/{APP}-health-*.log | head -n 1)"
    lines = int(system.output(f"cat {log} | wc -l"))
    load = system.in_release(f"python manage.py shell -c {shlex.quote(LOAD)}")
    system.output(f"setsid {load} >/tmp/load.log 2>&1 & echo $! > /tmp/load.pid")
    seen = []
    while system.run("kill -0 $(cat /tmp/load.pid)").rc == 0:
        seen.append((verdict(system, "worker"), heartbeat(system, "worker")["active"]))
        assert len(seen) < 500
    assert system.run("cat /tmp/load.log").stdout == ""
    assert len(seen) > 20
    assert sum(active == 2 for _, active in seen) > 0.8 * len(seen), seen
    assert {state for state, _ in seen} <= {"ready", "busy"}
    assert [program.pid for program in system.programs()] == pids
    assert system.output(f"tail -n +{lines + 1} {log}") == ""
