"""The canary against real workers, whose broker here is a directory. With RabbitMQ: tests/infra and `make matrix`."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
from amqp.exceptions import AccessRefused
from celery import Celery
from celery_ops.worker import canary
from support.stage import GENERATION, NODE, PROGRAM_NAME, clean_environment
from support.wait import wait_until

# An application that bends whatever settings can bend: none of it is the canary's business.
APP = """
import support.directory_broker
from celery import Celery
app = Celery("demo", broker="filesystem://")
app.conf.update(
    broker_transport_options={{key: "{directory}/" + name for key, name in
        {{"data_folder_in": "data", "data_folder_out": "data", "control_folder": "control"}}.items()}},
    task_queue_max_priority=10, task_default_priority=5,
    task_default_queue="elsewhere", task_default_exchange_type="topic",
    task_routes={{"*": {{"queue": "nowhere"}}}}, task_protocol=1, task_compression="bzip2",
    accept_content=["pickle"], task_serializer="pickle", result_serializer="pickle",
    task_default_rate_limit="1/h", task_annotations={{"*": {{"rate_limit": "1/h", "acks_late": True}}}},
)

class Odd(app.Task):
    def __call__(self, *arguments, **options):
        raise RuntimeError("the application's own base class")

app.Task = Odd
"""


@pytest.fixture
def worker(stage):
    for name in ("data", "control"):
        (stage.directory / name).mkdir()
    (stage.directory / "demo.py").write_text(APP.format(directory=stage.directory))
    return partial(stage.worker, GENERATION)


@pytest.fixture
def ready(stage):
    def ask(timeout=30):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "celery_ops.cli.ready", "-A", "demo", "--node", NODE),
                *("--canary-file", str(stage.run / f"{PROGRAM_NAME}.canary"), "--timeout", str(timeout)),
            ],
            **{"cwd": stage.directory, "env": clean_environment(), "capture_output": True, "text": True},
        )
        return json.loads(done.stdout or done.stderr)

    return ask


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_no_setting_of_the_application_bends_it(worker, ready, pool):
    started = worker("-P", pool, "-c", "1")
    answer = ready()
    assert (answer["ready"], answer["canary"]) == (True, "run"), f"{answer}\n{started.output}"
    assert started.stop() == 0


def test_a_worker_without_the_runtime_does_not_know_of_it(worker, ready):
    started = worker("-P", "solo", "-l", "INFO", runtime=())
    wait_until(lambda: " ready." in started.output, 30, f"the worker:\n{started.output}")
    assert "it lacks -I celery_ops.tasks" in ready(timeout=6)["reason"]


@pytest.fixture
def consumer(tmp_path):
    """As much of a worker's consumer as the canary uses, on a real connection."""
    app = Celery("demo", broker="memory://", set_as_current=False)

    class Consumer:
        hostname, connection_errors = "demo@here", (ConnectionResetError,)

        def __init__(self):
            self.app, self.connection, self.handed_over = app, app.connection_for_read(), []

        def create_task_handler(self):
            return self.handed_over.append

    yield (consumer := Consumer())
    consumer.connection.close()


def test_a_broker_that_refuses_the_queue_does_not_end_the_worker(consumer, monkeypatch):
    def refuse(*_, **__):
        raise AccessRefused("access to queue refused")

    monkeypatch.setattr(type(consumer.connection.default_channel), "queue_declare", refuse)
    found = canary.consume(consumer)
    assert found["queue"] == ""
    assert "access to queue refused" in found["reason"]


def test_a_lost_connection_is_the_workers_business(consumer, monkeypatch):
    def lose(*_, **__):
        raise ConnectionResetError

    monkeypatch.setattr(type(consumer.connection.default_channel), "queue_declare", lose)
    with pytest.raises(ConnectionResetError):
        canary.consume(consumer)


def test_the_broker_is_never_answered(consumer):
    found = canary.consume(consumer)
    canary.publish(consumer.app, consumer.connection, found["queue"], "token")
    consumer.connection.drain_events(timeout=5)
    (message,) = consumer.handed_over
    message.reject_log_error(None, ())
    assert message.payload[0] == ["token"]
    assert not consumer.connection.default_channel.qos._delivered


@pytest.mark.parametrize("name", ["celery_ops.canary", "celery_ops.tick"])
def test_the_kits_tasks_have_celerys_own_base(name):
    import celery_ops.tasks  # noqa: F401

    app = Celery("demo", set_as_current=False, task_cls="test_canary:Odd")
    app.conf.task_annotations = {"*": {"rate_limit": "1/h"}}
    task = app.tasks[name]
    assert not isinstance(task, Odd)
    assert not task.rate_limit


class Odd(canary.Task):
    """An application's own base class."""


def test_each_connection_has_a_queue_of_its_own(consumer):
    assert canary.consume(consumer)["queue"] != canary.consume(consumer)["queue"]
    assert os.environ.get("CELERY_OPS_CANARY_FILE") is None
