"""Real workers, whose broker is a directory, heed what is paused."""

import json
import time

import pytest
from celery_ops import pause
from support.directory_broker import application
from support.stage import GENERATION, PROGRAM_NAME
from support.wait import wait_until

TASK = """
@app.task(name="demo.run")
def run(name):
    Path("{directory}", name).touch()
"""
NEWS = """
from kombu import Queue
from kombu.common import Broadcast
app.conf.task_queues = [Queue("celery"), Broadcast("news")]
"""


def entry(what, name="", until=None):
    return {"what": what, "name": name, "since": 1.0, "until": until, "who": "anna@control", "why": ""}


@pytest.fixture
def app(stage):
    return application(stage.directory, TASK.format(directory=stage.directory))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_stops_its_intake_keeps_its_process_and_goes_on(stage, app, pool):
    path = stage.directory / "pause.json"
    started = stage.worker(GENERATION, "-P", pool, "-l", "INFO")
    wait_until(lambda: " ready." in started.output, 30, f"the worker:\n{started.output}")
    pause.write(path, [entry("all")])
    wait_until(lambda: "Canceling queue" in started.output, 20, f"the pause:\n{started.output}")
    app.send_task("demo.run", ["first"])
    heartbeat = stage.run / f"{PROGRAM_NAME}.heartbeat"
    wait_until(lambda: json.loads(heartbeat.read_text())["paused"], 20, "the heartbeat")
    assert json.loads(heartbeat.read_text())["queues"] == {}
    assert not (stage.directory / "first").exists()
    pause.write(path, [])
    wait_until((stage.directory / "first").exists, 20, f"the task:\n{started.output}")
    # Its next connection has it as well.
    assert json.loads(heartbeat.read_text())["queues"] == {"celery": True}
    assert started.stop() == 0


def test_a_worker_that_starts_paused_takes_nothing(stage, app):
    path = stage.directory / "pause.json"
    pause.write(path, [entry("program", PROGRAM_NAME.rpartition("-")[0], until=time.time() + 8)])
    app.send_task("demo.run", ["early"])
    started = stage.worker(GENERATION, "-P", "solo", "-l", "INFO")
    wait_until(lambda: " ready." in started.output, 30, f"the worker:\n{started.output}")
    assert not (stage.directory / "early").exists()
    wait_until((stage.directory / "early").exists, 30, f"the end of the pause:\n{started.output}")


def test_a_broadcast_is_paused_by_its_alias(stage):
    """Its queue has another name in each process, which nobody can know."""
    app = application(stage.directory, TASK.format(directory=stage.directory) + NEWS)
    path, run = stage.directory / "pause.json", stage.run / PROGRAM_NAME
    started = stage.worker(GENERATION, "-P", "solo", "-l", "INFO", "-Q", "celery,news")

    def beat(key):
        heartbeat = run.with_suffix(".heartbeat")
        return json.loads(heartbeat.read_text())[key] if heartbeat.exists() else None

    wait_until(lambda: beat("queues") == {"celery": True, "news": True}, 30, f"the worker:\n{started.output}")
    assert list(beat("aliases")) == ["news"]
    assert beat("aliases")["news"].startswith("bcast.")
    pause.write(path, [entry("queue", "news")])
    wait_until(lambda: beat("paused") == ["news"], 20, f"the pause:\n{started.output}")
    assert beat("queues") == {"celery": True}
    pause.write(path, [])
    wait_until(lambda: beat("queues") == {"celery": True, "news": True}, 20, f"its end:\n{started.output}")
    app.send_task("demo.run", ["told"], queue="news")
    wait_until((stage.directory / "told").exists, 20, f"the task:\n{started.output}")
    assert started.stop() == 0
