"""`check` against real workers, whose broker and result store here are directories. With RabbitMQ: tests/infra."""

import json
import subprocess
import sys

import pytest
from celery_ops.cli.check import REPLY
from celery_ops.layout import HEARTBEAT
from celery_ops.worker.heartbeat import READY, read
from support.stage import GENERATION, PROGRAM_NAME, clean_environment
from support.wait import wait_until

APP = """
import time
import support.directory_broker
from celery import Celery
app = Celery("demo", broker="filesystem://", backend={backend!r})
app.conf.update(
    broker_transport_options={{key: "{directory}/" + name for key, name in
        {{"data_folder_in": "data", "data_folder_out": "data", "control_folder": "control"}}.items()}}
        | {{"polling_interval": 0.05}},
    {settings}
)

@app.task
def rest(seconds):
    time.sleep(seconds)
"""


@pytest.fixture
def system(stage):
    """An application that is a module of its own, a worker of it under the guard, and the proof."""
    for name in ("data", "control", "results"):
        (stage.directory / name).mkdir()

    class System:
        def write(self, backend="file", settings="", head=""):
            backend = f"file://{stage.directory}/results" if backend == "file" else backend
            (stage.directory / "demo.py").write_text(
                head + APP.format(directory=stage.directory, backend=backend, settings=settings)
            )

        def work(self, *words):
            started = stage.worker(GENERATION, "-l", "INFO", *words)
            wait_until(lambda: " ready." in started.output, 40, f"the worker:\n{started.output}")
            return started

        def send(self, task, *arguments, queue, count=1):
            call = f"demo.app.send_task('demo.{task}', {list(arguments)}, queue={queue!r})"
            assert self.run("-c", f"import demo\nfor _ in range({count}): {call}").returncode == 0

        def run(self, *words):
            return subprocess.run(
                [sys.executable, *words], cwd=stage.directory, env=clean_environment(), capture_output=True, text=True
            )

        def check(self, *words, timeout=12):
            done = self.run("-m", "celery_ops.cli.check", "-A", "demo", "--timeout", str(timeout), *words)
            assert done.stdout, done.stderr
            return json.loads(done.stdout)

    return System()


@pytest.mark.parametrize(
    ("backend", "settings", "result"),
    [
        ("file", "", "kept"),
        ("file", "task_ignore_result=True, task_routes={'*': 'nowhere'}", "kept"),
        ("file", "task_routes=lambda name, *_, **__: {'demo.rest': 'queue3'}[name]", "kept"),
        (None, "", "none"),
    ],
    ids=["a store", "results ignored, routes to nowhere", "a router that knows its own tasks alone", "no store"],
)
def test_the_check_goes_through_a_queue_that_a_worker_consumes(system, stage, backend, settings, result):
    """An application with named queues, none of them Celery's default: `celery` has no consumer, and is not made."""
    system.write(backend, settings)
    started = system.work("-c", "1", "-Q", "queue3,queue5")
    answer = system.check("--no-scheduler", timeout=20)
    assert answer["passed"], f"{answer}\n{started.output}"
    assert (answer["queue"], answer["result"], answer["busy"]) == ("queue3", result, "")
    assert answer["round_trip"] < 10
    assert not (stage.directory / "control/celery.exchange").exists(), "the default queue was declared"


def test_of_workers_on_this_host_nothing_waits_for_more_replies(system, stage, tmp_path):
    """Which replies come is not known elsewhere: all of the time for them goes by."""
    system.write()
    system.work("-c", "1", "-Q", "queue3")
    beat = stage.run / f"{PROGRAM_NAME}{HEARTBEAT}"
    wait_until(lambda: read(beat).get("state") == READY, 30, "its heartbeat")
    code = (
        "import sys, time, demo; from pathlib import Path; from celery_ops.cli.check import RoundTrip; "
        "from celery_ops.probe import Deadline\n"
        "with demo.app.connection_for_write() as connection:\n"
        "    trip = RoundTrip(demo.app, connection, Deadline(20), {}, Path(sys.argv[1]))\n"
        "    begun = time.monotonic(); found = trip._consumed()\n"
        "    print(list(found), time.monotonic() - begun)"
    )
    for run, waits in ((stage.run, False), (tmp_path / "elsewhere", True)):
        queues, seconds = system.run("-c", code, run).stdout.split()
        assert (queues, float(seconds) >= REPLY) == ("['queue3']", waits), seconds


def test_with_no_worker_it_says_so(system):
    system.write()
    answer = system.check("--no-scheduler", timeout=6)
    assert not answer["passed"]
    assert "no worker answers the question what it consumes" in answer["reason"]


@pytest.mark.parametrize(
    ("seconds", "count", "pool", "said"),
    # Without RabbitMQ a worker with processes does not even listen while all of them are busy.
    [(60, 1, "threads", "1 of 1 slots are busy"), (0.1, 300, "prefork", "tasks wait in queue default")],
    ids=["all slots busy", "many waiting"],
)
def test_behind_waiting_tasks_it_says_busy_and_not_failed(system, seconds, count, pool, said):
    system.write()
    system.send("rest", seconds, queue="default", count=count)
    started = system.work("-c", "1", "-Q", "default", "-P", pool)
    answer = system.check("--no-scheduler", timeout=9)
    assert answer["passed"], f"{answer}\n{started.output}"
    assert said in answer["busy"]
    assert (answer["round_trip"], answer["reason"]) == (None, "")


def test_a_result_store_that_keeps_nothing_is_told_from_a_worker_that_does_not_run_it(system):
    system.write("cache+memory://")
    system.work("-c", "1", "-Q", "default")
    answer = system.check("--no-scheduler", timeout=9)
    assert not answer["passed"]
    assert "and its result did not come within" in answer["reason"]
    assert "look at the result store, memory:///" in answer["reason"]


@pytest.mark.parametrize(
    ("backend", "scheduler", "said"),
    [
        (None, (), "unknown: no result store keeps the tick"),
        ("rpc://", (), "unknown: no result store keeps the tick"),
        ("file", ("--scheduler", "redbeat.RedBeatScheduler"), "unknown: no beat tick has arrived yet"),
        ("file", (), ""),
    ],
    ids=["no store", "rpc", "another scheduler", "beat's own"],
)
def test_what_can_not_be_told_of_the_scheduler_is_said_and_is_no_failure(system, backend, scheduler, said):
    system.write(backend, head="import celery_ops.tasks\n")
    started = system.work("-c", "1", "-Q", "default")
    answer = system.check(*scheduler, timeout=8)
    assert answer["passed"] is bool(said), f"{answer}\n{started.output}"
    assert answer["tick"].startswith(said)
    assert (answer["tick"] or "is the scheduler running?") in (answer["tick"], answer["reason"][-25:])
