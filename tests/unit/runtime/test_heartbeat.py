"""Heartbeats: real workers and schedulers write them. No broker here; tests/infra has one."""

import signal
from types import SimpleNamespace

import pytest
from celery import Celery
from celery_ops.worker import heartbeat
from celery_ops.worker.heartbeat import DRAINING, READY, Heartbeat, read
from support.stage import BIN, GENERATION, PROGRAM_NAME, clean_environment
from support.wait import wait_until

APP = """
import time
from celery import Celery
app = Celery("demo", broker="memory://", set_as_current=True)
app.conf.worker_hijack_root_logger = False

@app.on_after_configure.connect
def schedule(sender, **_):
    sender.conf.beat_schedule = {"often": {"task": "demo.nothing", "schedule": 30.0}}
"""


@pytest.fixture
def beat(stage):
    """What a program of an app without the kit's settings says of itself."""
    (stage.directory / "demo.py").write_text(APP)
    return lambda: read(stage.run / f"{PROGRAM_NAME}.heartbeat")


@pytest.mark.parametrize(("pool", "module"), [("prefork", "prefork"), ("threads", "thread"), ("solo", "solo")])
def test_a_worker_says_how_it_is(stage, beat, pool, module):
    worker = stage.worker(GENERATION, "-P", pool, "-c", "2", "-Q", "a,b")
    found = wait_until(lambda: beat().get("state") == READY and beat(), 30, f"its readiness:\n{worker.output}")
    assert found["pid"] == worker.pid
    assert (found["kind"], found["pool"], found["broker"]) == ("worker", module, "")
    assert found["connected"]
    assert found["queues"] == {"a": True, "b": True}
    assert (found["active"], found["reserved"], found["accepted"]) == (0, 0, 0)
    assert found["slots"] == (1 if pool == "solo" else 2)
    worker.stop()
    assert beat()["state"] == DRAINING
    assert beat()["since"] >= found["since"]


def test_a_pool_that_grows_by_itself_has_as_many_slots_as_it_may_grow_to(stage, beat):
    worker = stage.worker(GENERATION, "--autoscale", "3,1")
    found = wait_until(lambda: beat().get("state") == READY and beat(), 30, f"its readiness:\n{worker.output}")
    assert found["slots"] == 3


def test_a_worker_goes_on_saying_it(stage, beat):
    worker = stage.worker(GENERATION, "-P", "solo")
    first = wait_until(lambda: beat().get("state") == READY and beat(), 30, f"its readiness:\n{worker.output}")
    later = wait_until(lambda: beat()["beat"] > first["beat"] and beat(), 10, "the next heartbeat")
    assert later["since"] == first["since"]
    assert later["beat"] - first["beat"] < heartbeat.EVERY + 2


def test_a_scheduler_says_when_it_ticks_next(stage, beat):
    (stage.directory / "demo.py").write_text(APP + "import celery_ops.tasks\n")
    words = ("--schedule", stage.directory / "schedule")
    scheduler = stage.start(BIN / "celery", "-A", "demo", "beat", *words, options=("--chdir", stage.directory))
    # The first tick is sent at once.
    found = wait_until(lambda: beat().get("due", 0) > 10 and beat(), 30, f"its readiness:\n{scheduler.output}")
    assert (found["kind"], found["pid"], found["state"]) == ("scheduler", scheduler.pid, READY)
    assert found["due"] <= 15


def test_nothing_is_written_without_the_guard(stage, monkeypatch):
    monkeypatch.delenv("CELERY_OPS_HEARTBEAT_FILE", raising=False)
    (stage.directory / "demo.py").write_text(APP)
    worker = stage.spawn(
        *(BIN / "celery", "-A", "demo", "worker", "-P", "solo", "-I", "celery_ops.tasks", "--without-mingle"),
        *("--pidfile", stage.pidfile),
        cwd=stage.directory,
        env=clean_environment(),
    )
    wait_until(stage.pidfile.exists, 30, "the worker")
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)
    assert not list(stage.directory.rglob("*.heartbeat*"))


def test_what_a_signal_says_in_the_midst_of_a_heartbeat_stays(tmp_path):
    class Interrupted(Heartbeat):
        interrupted = False

        def about(self):
            if not self.interrupted:
                self.interrupted = True
                self.enter(DRAINING)
            return {}

    beat = Interrupted(str(tmp_path / "x.heartbeat"), "worker")
    beat.enter(READY)
    assert read(tmp_path / "x.heartbeat")["state"] == DRAINING
    beat.enter(READY)
    assert read(tmp_path / "x.heartbeat")["state"] == DRAINING
    assert [path.name for path in tmp_path.iterdir()] == ["x.heartbeat"]


def test_a_directory_that_is_gone_harms_nobody(tmp_path):
    Heartbeat(str(tmp_path / "gone" / "x.heartbeat"), "worker").write()


class TestConsumed:
    @pytest.fixture
    def consumer(self):
        app = Celery("demo", broker="memory://", set_as_current=False)
        app.amqp.queues.select(["a", "b"])
        with app.connection_for_read() as connection:
            tasks = app.amqp.TaskConsumer(connection)
            tasks.consume()
            yield SimpleNamespace(app=app, task_consumer=tasks)

    def test_all(self, consumer):
        assert heartbeat.consumed(consumer) == {"a": True, "b": True}

    def test_one_is_closed(self, consumer):
        consumer.task_consumer._active_tags.pop("a")
        assert heartbeat.consumed(consumer) == {"a": False, "b": True}

    def test_the_channel_is_closed(self, consumer):
        consumer.task_consumer.channel.close()
        assert heartbeat.consumed(consumer) == {"a": False, "b": False}

    def test_none_yet(self, consumer):
        consumer.task_consumer = None
        assert heartbeat.consumed(consumer) == {"a": False, "b": False}

    def test_told_to_consume_from_one_only(self, consumer):
        consumer.app.amqp.queues.deselect("a")
        consumer.task_consumer.cancel_by_queue("a")
        assert heartbeat.consumed(consumer) == {"b": True}
