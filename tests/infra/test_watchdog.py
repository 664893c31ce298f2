"""The watchdog on a real host: what is unhealthy is restarted, what is healthy is left alone."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.control import play
from support.host import APP, CURRENT, Host
from support.wait import wait_until

pytestmark = [pytest.mark.timeout(150), pytest.mark.only_on("trixie")]


def heartbeat(host: Host, kind: str) -> dict[str, Any]:
    """Returns the heartbeat of the one program of a kind that runs."""
    text = host.output(f"cat /run/{APP}/{host.program(kind).name}.heartbeat")
    return json.loads(text)


def watchdog(host: Host) -> dict[str, Any]:
    """Returns the watchdog's own heartbeat."""
    return json.loads(host.output(f"cat /run/{APP}/{APP}-watchdog-*.heartbeat"))


def assessment(host: Host, kind: str) -> str | None:
    """Returns what the watchdog says of a program."""
    return watchdog(host)["programs"].get(host.program(kind).name, {}).get("state")


def log(host: Host) -> str:
    """Returns what the watchdog that runs has said."""
    [name] = [program.name for program in host.programs() if program.name.startswith(f"{APP}-watchdog-")]
    return host.output(f"cat /var/log/{APP}/{name}.log")


def said(host: Host, words: str) -> bool:
    """Tells whether the watchdog that runs has said this."""
    return words in log(host)


def state_of(host: Host, pid: int) -> str:
    """Returns a process's state as in ps."""
    return host.run(f"ps -o stat= -p {pid}").stdout.strip()[:1]


def children(host: Host, pid: int) -> list[int]:
    """Returns the pool processes of a worker."""
    return [int(child) for child in host.output(f"ps -o pid= --ppid {pid}").split()]


def is_healthy(host: Host) -> None:
    """Waits until worker and scheduler are what they should be."""
    for kind in ("worker-default", "scheduler"):
        wait_until(
            lambda kind=kind: assessment(host, kind) in ("ready", "busy"), 40, f"the watchdog calling {kind} ready"
        )


@pytest.fixture(autouse=True)
def healthy(host):
    """Every test begins and ends with a healthy system."""
    is_healthy(host)
    yield
    is_healthy(host)


def test_heartbeats_tell_the_truth(host):
    worker, scheduler = heartbeat(host, "worker-default"), heartbeat(host, "scheduler")
    assert worker["pid"] == host.program("worker-default").pid
    assert scheduler["pid"] == host.program("scheduler").pid
    assert (worker["broker"], worker["connected"]) == ("amqp://127.0.0.1:5672", True)
    assert worker["queues"] == {APP: True}
    assert (worker["pool"], worker["slots"]) == ("prefork", 2)
    assert worker["accepted"] > 0
    assert watchdog(host)["orphans"] == []


def test_a_frozen_pool_and_a_frozen_scheduler_go_on(host):
    worker, scheduler = host.program("worker-default").pid, host.program("scheduler").pid
    stopped = [*children(host, worker), scheduler]
    assert len(stopped) == 3
    host.output(f"kill -STOP {' '.join(map(str, stopped))}")
    # The log keeps it; a look at the processes may come after the watchdog has continued them.
    for words in ("2 of its pool processes are stopped (state T)", "its main process is stopped (state T)"):
        wait_until(lambda words=words: said(host, f"{words}: SIGCONT sent"), 30, words)
    wait_until(lambda: "T" not in {state_of(host, pid) for pid in stopped}, 20, "all of them going on")
    wait_until(host.task_comes_back, 30, "a task going to the worker and back")
    assert (host.program("worker-default").pid, host.program("scheduler").pid) == (worker, scheduler)
    assert said(host, f"its main process is stopped (state T): SIGCONT sent to {scheduler}")


def test_a_broker_that_is_away_is_waited_for(host):
    pids, before = [program.pid for program in host.programs()], log(host)
    host.output("rabbitmqctl stop_app")
    try:
        wait_until(lambda: assessment(host, "worker-default") == "broker away", 50, "the watchdog seeing it")
        assert heartbeat(host, "worker-default")["connected"] is False
        # Longer than the watchdog waits before it signals anything else.
        seen = watchdog(host)["programs"][host.program("worker-default").name]["seconds"]
        wait_until(
            lambda: watchdog(host)["programs"][host.program("worker-default").name]["seconds"] > seen + 15,
            30,
            "time to pass",
        )
    finally:
        host.output("rabbitmqctl start_app")
    is_healthy(host)
    wait_until(host.task_comes_back, 30, "a task going to the worker and back")
    assert [program.pid for program in host.programs()] == pids
    assert " sent to " not in log(host).removeprefix(before)


def test_a_frozen_worker_goes_on(host):
    worker = host.program("worker-default").pid
    host.output(f"kill -STOP {worker}")
    # It was signalled before, so the watchdog may wait half a minute longer this time.
    help_ = f"its main process is stopped (state T): SIGCONT sent to {worker}"
    wait_until(lambda: said(host, help_), 60, help_)
    wait_until(lambda: state_of(host, worker) != "T", 10, "the worker going on")
    wait_until(host.task_comes_back, 30, "a task going to the worker and back")
    assert host.program("worker-default").pid == worker


def ends(host: Host, program: str) -> int:
    """Returns how often a program has ended by itself with an exit status, as Supervisor tells."""
    return int(host.run(f"grep -c 'exited: {program} (exit status' /var/log/supervisor/supervisord.log").stdout)


def test_a_worker_with_wrong_credentials_comes_back_when_they_are_put_right(host, secrets):
    worker = host.program("worker-default")
    before, file = ends(host, worker.name), host.output(f"readlink -f /etc/{APP}/env")
    host.output(f"cp -p {file} {file}.right && sed -i 's/{secrets[f'{APP}_broker_password']}/wrong/' {file}")
    try:
        host.output(f"kill -KILL {worker.pid}")
        # Not the state BACKOFF, which is over after a second: a look may miss it.
        wait_until(lambda: ends(host, worker.name) >= before + 2, 60, "Supervisor trying again and again")
    finally:
        host.output(f"mv {file}.right {file}")
    wait_until(lambda: host.program("worker-default").state == "RUNNING", 60, "the worker coming back")
    wait_until(host.task_comes_back, 60, "a task going to the worker and back")
    assert host.program("worker-default").name == worker.name


def status(host: Host, *options: str) -> str:
    """Runs playbooks/status.yml for the host as an operator does."""
    run = play("status", host, options=options, status_exit=False)
    assert run.rc == 0, run.text
    assert "changed=0 " in run.text
    return run.text


def test_status_shows_what_is_right_and_what_is_not(host, secrets):
    worker, scheduler = host.program("worker-default"), host.program("scheduler")
    # The test before has restarted the worker, and a quorum queue counts its consumers every five seconds.
    count = f"rabbitmqctl -q -p {APP} list_queues name consumers"
    wait_until(lambda: f"{APP}\t1" in host.output(count).splitlines(), 20, "one consumer counted")
    said_ = status(host, "--check", "--diff")
    assert re.search(rf"{worker.name} +RUNNING +{worker.pid} .* (ready|busy) +{APP} \([0-2]/2 busy\)\n", said_), said_
    assert re.search(rf"{APP} +\d+ +\d+ +1\b.*\n +{APP}.dead ", said_), said_
    assert "orphans: none" in said_
    host.output(f"supervisorctl stop {scheduler.name}")
    try:
        said_ = status(host, "-vvv")
    finally:
        host.output(f"supervisorctl start {scheduler.name}")
    assert f"- {scheduler.name} was stopped manually. Start it: supervisorctl start {scheduler.name}\n" in said_
    assert not [name for name, secret in secrets.items() if secret in said_]


ALIKE = f"/srv/{APP}/alike/bin/celery"
SLEEP = f"{CURRENT}/venv/bin/python -c 'import time; time.sleep(300)'"
LOOK_ALIKES = {
    "of another user, else the same": f"{CURRENT}/venv/bin/python {ALIKE} -A {APP} worker",
    "a sleep named celery": f"runuser -u {APP} -- bash -c 'exec -a {CURRENT}/venv/bin/celery sleep 300'",
    "a pager over celery": f"runuser -u {APP} -- tail -f {CURRENT}/venv/bin/celery",
    "another program of the release": f"runuser -u {APP} -- {SLEEP} celery -A {APP} worker",
}


def test_an_orphan_is_drained_and_look_alikes_live(host):
    host.output(f"install -D -m 0755 /dev/null {ALIKE} && echo 'import time; time.sleep(300)' > {ALIKE}")
    # runuser ends when its command does.
    alikes = [host.output(f"setsid {command} >/dev/null 2>&1 & echo $!").strip() for command in LOOK_ALIKES.values()]
    look = f"ps -o pid= -p {','.join(alikes)}"
    # The brackets keep pgrep's own shell out.
    commands = "pgrep -f 'slee[p].300|tai[l] -f /srv|alike/bi[n]/celery'"
    assert set(host.run(look).stdout.split()) == set(alikes)
    before = log(host)
    by_hand = {
        "worker": f"-c 1 -Q {APP}.by-hand -n by-hand@%h --pidfile /tmp/by-hand.worker.pid",
        "beat": "--schedule /tmp/by-hand.schedule --pidfile /tmp/by-hand.beat.pid",
    }
    for command, options in by_hand.items():
        line = host.in_release(f"celery -A {APP} {command} {options}")
        host.output(f"setsid {line} >/dev/null 2>/tmp/by-hand.{command}.log &")
    try:
        for command in by_hand:
            # From the log: it may be told to finish before it has a pidfile, and be gone before anybody looks.
            seen = rf"pid (\d+) \({command} started by hand"
            match = wait_until(lambda seen=seen: re.search(seen, log(host).removeprefix(before)), 30, "it being seen")
            ended = f"pid {match[1]} ({command} started by hand) has ended"
            wait_until(lambda ended=ended: said(host, ended), 20, "its end")
            wait_until(lambda pid=int(match[1]): state_of(host, pid) == "", 10, "its process gone")
        assert set(host.run(look).stdout.split()) == set(alikes)
    finally:
        host.run(f"{commands} | xargs kill; rm -rf /tmp/by-hand.* /srv/{APP}/alike")
        host.run(f"rabbitmqctl delete_queue -p {APP} {APP}.by-hand")


# Seconds that both slots of a worker are busy; CELERY_OPS_BUSY=3600 for an hour of computing without a false alarm.
BUSY = int(os.environ.get("CELERY_OPS_BUSY", "64"))
DIRECTORY = f"/srv/{APP}/burn"
BURN = f"{APP}-worker-burn-0badcafe"
BURN_CONF = f"""
[program:{BURN}]
command={{release}}/bin/celery-ops-guard --app {APP} --program {BURN} --pidfile /run/{APP}/{BURN}.pid --user {APP}
 --env-file /etc/{APP}/env --chdir {DIRECTORY}
 -- {{release}}/venv/bin/celery -A burn worker -Q burn -c 2 -n burn@%%h -I celery_ops.tasks
autorestart=true
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={DIRECTORY}/log
"""


class Burn:
    """A worker of another application, under the same watchdog."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def run(self, command: str) -> str:
        """Runs a program of the release in the application's directory."""
        return self.host.output(f"{APP} env -C {DIRECTORY} {command}")

    def assessment(self) -> dict[str, Any]:
        """Returns what the watchdog says of it."""
        return watchdog(self.host)["programs"].get(BURN, {})

    def beat(self) -> dict[str, Any]:
        """Returns its heartbeat."""
        return json.loads(self.host.run(f"cat /run/{APP}/{BURN}.heartbeat").stdout or "{}")


@pytest.fixture
def burn(host):
    """Has that worker run for a test."""
    conf = BURN_CONF.format(release=CURRENT).replace("\n -", " -")
    source = Path(__file__).with_name("burn.py").read_text()
    host.output(f"install -d {DIRECTORY} && printf %s {shlex.quote(source)} > {DIRECTORY}/burn.py")
    host.output(f"printf %s {shlex.quote(conf)} > /etc/supervisor/conf.d/{BURN}.conf && supervisorctl update {BURN}")
    burn = Burn(host)
    try:
        wait_until(lambda: burn.assessment().get("state") == "ready", 30, "the worker ready")
        yield burn
    finally:
        host.output(f"rm -f /etc/supervisor/conf.d/{BURN}.conf && supervisorctl update {BURN}")
        host.output(f"rm -rf {DIRECTORY} && rabbitmqctl delete_queue -p {APP} burn")


@pytest.mark.timeout(BUSY + 180)
@pytest.mark.only_on("bare")
def test_a_busy_worker_is_left_alone_and_a_deaf_one_restarted(burn, host):
    pids, tasks = [program.pid for program in host.programs()], BUSY // 8
    send = f"from burn import burn; [burn.delay(16, {BUSY > 64}) for _ in range({tasks})]"
    burn.run(f"python -c {shlex.quote(send)}")
    wait_until(lambda: burn.assessment()["state"] == "busy", 10, "both slots busy")
    busy = []
    wait_until(
        lambda: busy.append(burn.assessment()["state"]) or burn.beat()["accepted"] == tasks, BUSY + 30, "the last task"
    )
    # Between two tasks a slot is free for a moment.
    assert "busy" in busy and set(busy) <= {"busy", "ready"}, busy
    wait_until(lambda: burn.beat()["active"] == 0, 40, "the end of the tasks")
    assert [program.pid for program in host.programs()] == pids
    assert not said(host, f"{BURN}: ")

    old = burn.beat()["pid"]
    deafen = "from burn import app; print(app.control.broadcast('deafen', reply=True))"
    assert "deaf" in burn.run(f"python -c {shlex.quote(deafen)}")
    wait_until(lambda: burn.assessment()["state"] == "deaf", 15, "the watchdog seeing it")
    wait_until(lambda: burn.beat().get("pid") != old and burn.assessment()["state"] == "ready", 60, "a new worker")
    assert said(host, f"{BURN}: it is connected and does not consume from burn: SIGTERM sent to {old}")
