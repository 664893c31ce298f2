"""What a worker counts: real workers, whose broker here is a directory. RabbitMQ: tests/operate/test_metrics.py."""

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery
from celery_ops.worker import counters
from celery_ops.worker.counters import EXCEPTIONS, OTHER, TASKS, Counters, OfTask
from kombu import Queue
from kombu.common import Broadcast
from support.directory_broker import application
from support.stage import GENERATION, PROGRAM_NAME
from support.wait import wait_until

TASKS_OF_DEMO = """
import os, signal, time
import celery_ops
celery_ops.apply(app)
app.conf.worker_consumer = "celery.worker.consumer:Consumer"  # of AMQP alone
app.conf.update(task_default_queue="jobs", task_default_queue_type="classic", task_default_exchange_type="direct",
                task_create_missing_queue_type="classic", task_create_missing_queue_exchange_type="direct",
                result_backend=None)

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("what can't be pickled")

@app.task(name="demo.run")
def run(seconds=0):
    time.sleep(seconds)

@app.task(name="demo.fail")
def fail(odd=False):
    raise Odd(1, 2) if odd else ValueError("no")

@app.task(name="demo.again", bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)

@app.task(name="demo.long", time_limit=1)
def long():
    time.sleep(60)
"""


@pytest.fixture
def app(stage):
    return application(stage.directory, TASKS_OF_DEMO)


def counted(stage):
    """What the worker's file says; {} before there is one."""
    found = sorted(stage.run.glob(f"{PROGRAM_NAME}.*.tasks"))
    return json.loads(found[-1].read_text()) if found else {}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_is_counted(stage, app, pool):
    for name, arguments in (("run", [0.2]), ("run", []), ("fail", []), ("fail", [True]), ("again", [])):
        app.send_task(f"demo.{name}", arguments)
    app.send_task("demo.nobody_knows")
    worker = stage.worker(GENERATION, "-P", pool, "-c", "2", "-Q", "jobs", "-l", "INFO")
    wait_until(lambda: worker.output.count("succeeded in") >= 3, 40, "the tasks' end")
    worker.stop()
    found = counted(stage)
    tasks = found["tasks"]
    assert (tasks["demo.run"]["started"], tasks["demo.run"]["succeeded"], tasks["demo.run"]["failed"]) == (2, 2, {})
    assert tasks["demo.long"]["started"] == 0
    assert not [name for name in tasks if name.startswith("celery")]
    assert tasks["demo.fail"]["failed"] == {"ValueError": 1, "Odd": 1}
    assert (tasks["demo.again"]["started"], tasks["demo.again"]["retried"], tasks["demo.again"]["succeeded"]) == (
        *(2, 1, 1),
    )
    assert sum(tasks["demo.run"]["runtime"]["counts"]) == 2
    assert 0.2 <= tasks["demo.run"]["runtime"]["sum"] < 5
    assert found["refused"] == {"unknown": 1}
    jobs = found["queues"]["jobs"]
    assert (jobs["delivered"], jobs["finished"]) == (6, 6)
    assert sum(jobs["wait"]["counts"]) == 6
    assert jobs["wait"]["sum"] > 0
    assert time.time() - 120 < jobs["published"] < time.time()


def test_a_task_that_is_killed_has_failed_once(stage, app):
    app.send_task("demo.long")
    worker = stage.worker(GENERATION, "-c", "1", "-Q", "jobs")
    wait_until(lambda: counted(stage).get("tasks", {}).get("demo.long", {}).get("failed"), 40, worker.output)
    worker.stop()
    assert counted(stage)["tasks"]["demo.long"]["failed"] == {"TimeLimitExceeded": 1}
    assert counted(stage)["queues"]["jobs"]["finished"] == 1


def test_a_broadcast_is_counted_by_its_alias():
    """Its queue has another name in each process, so that each start would be another label."""
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.task_queues = [Queue("jobs"), Broadcast("news")]
    with app.connection_for_read() as connection:
        tasks = app.amqp.TaskConsumer(connection)
        tasks.consume()
        queue_of = counters.Queues(SimpleNamespace(app=app, consumer=SimpleNamespace(task_consumer=tasks)))
        called = {
            queue_of(SimpleNamespace(message=SimpleNamespace(delivery_info={"consumer_tag": tag})))
            for tag in tasks._active_tags.values()
        }
    assert called == {"jobs", "news"}


def test_when_a_message_was_published():
    now = time.time()
    assert counters.published({}) is None
    assert counters.published({counters.PUBLISHED: "soon"}) is None
    assert counters.published({counters.PUBLISHED: 12.5, "timestamp_in_ms": 1}) == 12.5
    assert counters.published({"timestamp_in_ms": 2500}) == 2.5
    naive = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    assert counters.published({"properties": {"timestamp": naive}}) == pytest.approx(now)
    assert counters.published({"properties": {"timestamp": 99}}) == 99
    headers = {counters.PUBLISHED: 1.0}
    counters.stamp(headers=headers)
    assert headers[counters.PUBLISHED] == pytest.approx(now, abs=30)


def test_a_task_with_an_eta_waits_from_then(tmp_path):
    eta = (datetime.now(UTC) - timedelta(seconds=2)).isoformat()
    found = Counters(tmp_path / "x.tasks")
    found.delivered("a", {counters.PUBLISHED: time.time() - 3600, "eta": eta}, "jobs").began(time.monotonic())
    assert found.queues["jobs"].wait.sum == pytest.approx(2, abs=1)


def test_a_clock_that_is_set_bends_waits_for_seconds_only(tmp_path, monkeypatch):
    found = Counters(tmp_path / "x.tasks")
    found.changed = False  # an idle worker writes nothing
    ahead = time.time() + 7200
    monkeypatch.setattr(counters.time, "time", lambda: ahead)
    found.write()
    found.delivered("a", {counters.PUBLISHED: ahead - 3}, "jobs").began(time.monotonic())
    assert found.queues["jobs"].wait.sum == pytest.approx(3, abs=1)


def test_a_sender_whose_clock_is_ahead_has_published_by_now(tmp_path):
    found = Counters(tmp_path / "x.tasks")
    found.delivered("a", {counters.PUBLISHED: time.time() + 7200}, "jobs")
    assert found.about()["queues"]["jobs"]["published"] == pytest.approx(time.time(), abs=5)


@pytest.mark.timeout(10)
def test_a_signal_handler_counts_in_the_midst_of_counting(tmp_path):
    found = Counters(tmp_path / "x.tasks")
    run = found.delivered("a", {}, "jobs")
    run.began(time.monotonic())
    previous = signal.signal(signal.SIGUSR2, lambda *_: run.ended(None, 0.1))
    try:
        with found.file_lock, found.lock:
            found.written = -60.0  # so that it writes as well
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert found.about()["tasks"]["a"]["succeeded"] == 1


def test_names_are_bounded(tmp_path):
    found = Counters(tmp_path / "x.tasks")
    for number in range(TASKS + 7):
        found.delivered(f"task-{number}", {}, "").began(0.0)
    assert len(found.tasks) == TASKS + 1
    assert found.tasks[OTHER].started == 7
    task = OfTask()
    for number in range(EXCEPTIONS + 5):
        task.fail(f"Error{number}")
    assert len(task.failed) == EXCEPTIONS + 1
    assert task.failed[OTHER] == 5


def test_a_full_run_directory_harms_nobody(tmp_path):
    found = Counters(tmp_path / "missing" / "x.tasks")
    found.delivered("a", {}, "jobs").ended(None, 0.1)
    found.write()
    assert found.queues["jobs"].finished == 1
