"""The watch on a real host: what is sick heals by itself, what is well is left alone."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.wait import wait_until
from system import APP, CURRENT, System

pytestmark = [pytest.mark.timeout(150), pytest.mark.only_on("bookworm")]


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


def log(system: System) -> str:
    """Returns what the watch that runs has said."""
    [name] = [program.name for program in system.programs() if program.name.startswith(f"{APP}-health-")]
    return system.output(f"cat /var/log/{APP}/{name}.log")


def said(system: System, words: str) -> bool:
    """Tells whether the watch that runs has said this."""
    return words in log(system)


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
    # The log says it for good; a look at the processes may come after the watch's help.
    for words in ("2 of its pool processes are stopped (state T)", "its main process is stopped (state T)"):
        wait_until(lambda words=words: said(system, f"{words}: SIGCONT sent"), 30, words)
    wait_until(lambda: "T" not in {state_of(system, pid) for pid in stopped}, 20, "all of them going on")
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert (system.program("worker").pid, system.program("scheduler").pid) == (worker, scheduler)
    assert said(system, f"its main process is stopped (state T): SIGCONT sent to {scheduler}")


def test_a_broker_that_is_away_is_waited_for(system):
    pids, before = [program.pid for program in system.programs()], log(system)
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
    assert " sent to " not in log(system).removeprefix(before)


def test_a_frozen_worker_goes_on(system):
    worker = system.program("worker").pid
    system.output(f"kill -STOP {worker}")
    # It was treated before, so that the watch may wait half a minute longer this time.
    help_ = f"its main process is stopped (state T): SIGCONT sent to {worker}"
    wait_until(lambda: said(system, help_), 60, help_)
    wait_until(lambda: state_of(system, worker) != "T", 10, "the worker going on")
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert system.program("worker").pid == worker


def test_a_worker_with_wrong_credentials_comes_back_when_they_are_put_right(system, secrets):
    worker = system.program("worker")
    file = system.output(f"readlink -f /etc/{APP}/env")
    system.output(f"cp -p {file} {file}.right && sed -i 's/{secrets[f'{APP}_broker_password']}/wrong/' {file}")
    try:
        system.output(f"kill -KILL {worker.pid}")
        wait_until(lambda: system.program("worker").state == "BACKOFF", 30, "Supervisor trying again and again")
    finally:
        system.output(f"mv {file}.right {file}")
    wait_until(lambda: system.program("worker").state == "RUNNING", 40, "the worker coming back")
    wait_until(system.proves_itself, 30, "a task going to the worker and back")
    assert system.program("worker").name == worker.name


def status(system: System, *options: str) -> str:
    """Runs playbooks/status.yml for the host as an operator does."""
    run = system.play("status", *options)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=0 " in run.stdout
    return run.stdout


def test_status_shows_what_is_right_and_what_is_not(system, secrets):
    worker, scheduler = system.program("worker"), system.program("scheduler")
    # The test before has restarted the worker, and a quorum queue counts its consumers every five seconds.
    count = f"rabbitmqctl -q -p {APP} list_queues name consumers"
    wait_until(lambda: f"{APP}\t1" in system.output(count).splitlines(), 20, "one consumer counted")
    said_ = status(system, "--check", "--diff")
    assert re.search(rf"{worker.name} +RUNNING +{worker.pid} .* (ready|busy) +{APP} \([0-2]/2 busy\)\n", said_), said_
    assert re.search(rf"queues: {APP} \d+ \(1 consumers\), {APP}.dead ", said_), said_
    assert "orphans: none" in said_
    system.output(f"supervisorctl stop {scheduler.name}")
    try:
        said_ = status(system, "-vvv")
    finally:
        system.output(f"supervisorctl start {scheduler.name}")
    assert f"- {scheduler.name} is stopped, by somebody; type: supervisorctl start {scheduler.name}\n" in said_
    assert not [name for name, secret in secrets.items() if secret in said_]


ALIKE = f"/srv/{APP}/alike/bin/celery"
SLEEP = f"{CURRENT}/venv/bin/python -c 'import time; time.sleep(300)'"
LOOK_ALIKES = {
    "of another user, else the same": f"{CURRENT}/venv/bin/python {ALIKE} -A {APP} worker",
    "a sleep named celery": f"runuser -u {APP} -- bash -c 'exec -a {CURRENT}/venv/bin/celery sleep 300'",
    "a pager over celery": f"runuser -u {APP} -- tail -f {CURRENT}/venv/bin/celery",
    "another program of the release": f"runuser -u {APP} -- {SLEEP} celery -A {APP} worker",
}


def test_an_orphan_is_drained_and_look_alikes_live(system):
    system.output(f"install -D -m 0755 /dev/null {ALIKE} && echo 'import time; time.sleep(300)' > {ALIKE}")
    for command in LOOK_ALIKES.values():
        system.output(f"setsid {command} >/dev/null 2>&1 &")
    # The brackets keep pgrep's own shell out.
    alike = "pgrep -f 'slee[p].300|tai[l] -f /srv|alike/bi[n]/celery'"
    alikes = wait_until(
        lambda: len(found := system.run(alike).stdout.split()) > len(LOOK_ALIKES) and found, 10, "the look-alikes"
    )
    before = log(system)
    by_hand = system.in_release(
        f"celery -A {APP} worker -c 1 -Q {APP}.by-hand -n by-hand@%h --pidfile /tmp/by-hand.pid"
    )
    system.output(f"setsid {by_hand} >/dev/null 2>/tmp/by-hand.log &")
    try:
        # From the log: it may be told to finish before it has a pidfile, and be gone before anybody looks.
        seen = r"pid (\d+) \(worker started by hand"
        pid = wait_until(lambda: re.search(seen, log(system).removeprefix(before)), 30, "the watch seeing it")[1]
        wait_until(lambda: said(system, f"pid {pid} (worker started by hand) has ended"), 20, "its end")
        wait_until(lambda: state_of(system, int(pid)) == "", 10, "its process gone")
        assert system.run(alike).stdout.split() == alikes
    finally:
        system.run(f"{alike} | xargs kill; rm -rf /tmp/by-hand.* /srv/{APP}/alike")
        system.run(f"rabbitmqctl delete_queue -p {APP} {APP}.by-hand")


# Seconds that both slots of a worker are busy; CELERY_OPS_BUSY=3600 for an hour without a false alarm.
BUSY = int(os.environ.get("CELERY_OPS_BUSY", "64"))
FOLDER = f"/srv/{APP}/burn"
BURN = f"{APP}-worker-burn-0badcafe"
BURN_CONF = f"""
[program:{BURN}]
command={{venv}}/celery-ops-guard --app {APP} --program {BURN} --pidfile /run/{APP}/{BURN}.pid --user {APP}
 --env-file /etc/{APP}/env --chdir {FOLDER}
 -- {{venv}}/celery -A burn worker -Q burn -c 2 -n burn@%%h -I celery_ops.tasks
autorestart=true
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={FOLDER}/log
"""


class Burn:
    """A worker of another application, under the same watch."""

    def __init__(self, system: System) -> None:
        self.system = system

    def run(self, command: str) -> str:
        """Runs a program of the release in the application's folder."""
        return self.system.output(f"{APP} env -C {FOLDER} {command}")

    def verdict(self) -> dict[str, Any]:
        """Returns what the watch says of it."""
        return watch(self.system)["programs"].get(BURN, {})

    def beat(self) -> dict[str, Any]:
        """Returns its heartbeat."""
        return json.loads(self.system.run(f"cat /run/{APP}/{BURN}.heartbeat").stdout or "{}")


@pytest.fixture
def burn(system):
    """Has that worker run for a test."""
    conf = BURN_CONF.format(venv=f"{CURRENT}/venv/bin").replace("\n -", " -")
    source = Path(__file__).with_name("burn.py").read_text()
    system.output(f"install -d {FOLDER} && printf %s {shlex.quote(source)} > {FOLDER}/burn.py")
    system.output(f"printf %s {shlex.quote(conf)} > /etc/supervisor/conf.d/{BURN}.conf && supervisorctl update {BURN}")
    burn = Burn(system)
    try:
        wait_until(lambda: burn.verdict().get("state") == "ready", 30, "the worker ready")
        yield burn
    finally:
        system.output(f"rm -f /etc/supervisor/conf.d/{BURN}.conf && supervisorctl update {BURN}")
        system.output(f"rm -rf {FOLDER} && rabbitmqctl delete_queue -p {APP} burn")


@pytest.mark.timeout(BUSY + 180)
@pytest.mark.only_on("bare")
def test_a_busy_worker_is_left_alone_and_a_deaf_one_restarted(burn, system):
    pids, tasks = [program.pid for program in system.programs()], BUSY // 8
    send = f"from burn import burn; [burn.delay(16) for _ in range({tasks})]"
    burn.run(f"python -c {shlex.quote(send)}")
    wait_until(lambda: burn.verdict()["state"] == "busy", 10, "both slots busy")
    busy = []
    wait_until(
        lambda: busy.append(burn.verdict()["state"]) or burn.beat()["accepted"] == tasks, BUSY + 30, "the last task"
    )
    # Between two tasks a slot is free for a moment.
    assert "busy" in busy and set(busy) <= {"busy", "ready"}, busy
    wait_until(lambda: burn.beat()["active"] == 0, 40, "the end of the tasks")
    assert [program.pid for program in system.programs()] == pids
    assert not said(system, f"{BURN}: ")

    old = burn.beat()["pid"]
    deafen = "from burn import app; print(app.control.broadcast('deafen', reply=True))"
    assert "deaf" in burn.run(f"python -c {shlex.quote(deafen)}")
    wait_until(lambda: burn.verdict()["state"] == "deaf", 15, "the watch seeing it")
    wait_until(lambda: burn.beat().get("pid") != old and burn.verdict()["state"] == "ready", 60, "a new worker")
    assert said(system, f"{BURN}: it is connected and does not consume from burn: SIGTERM sent to {old}")
