"""A worker whose result store is away: its main loop stores nothing that it waits for, and no tick holds a task up."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import pytest
from celery_ops.worker.revoked import Revocations
from support.directory_broker import application
from support.wait import wait_until

TASK = """
app.conf.result_backend = "redis://127.0.0.1:{port}/0"
@app.task(name="demo.run")
def run(name):
    Path("{directory}", name).touch()
"""


@pytest.fixture(params=["refuses", "silent"])
def app(request, stage):
    """An application whose result store refuses connections, or accepts them and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        port = store.getsockname()[1]
        if request.param == "refuses":
            store.close()
        app = application(stage.directory, TASK.format(port=port, directory=stage.directory))
        app.conf.result_backend = "disabled://"  # of this process, which only sends
        yield app


def start_worker(stage):
    """Return a worker that is ready, with one slot."""
    worker = stage.worker("1a2b3c4d", "-c", "1", "-l", "INFO")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
    return worker


def test_a_worker_outlives_expired_and_revoked_tasks(stage, app):
    Revocations(stage.directory / "revoked", "by-operator").add(["revoked"])
    worker = start_worker(stage)
    app.send_task("demo.run", ["late"], task_id="late", expires=datetime(2026, 1, 1, tzinfo=UTC))
    app.send_task("demo.run", ["cancelled"], task_id="revoked")
    app.send_task("demo.run", ["done"], ignore_result=True)
    said = [f"The state of task {name} can't be kept" for name in ("late", "revoked")]
    over = lambda: (stage.directory / "done").exists() and all(line in worker.output for line in said)  # noqa: E731
    wait_until(over, 20, f"all three:\n{worker.output}")
    assert not (stage.directory / "late").exists() and not (stage.directory / "cancelled").exists()
    assert worker.stop() == 0


def test_ticks_hold_no_task_up(stage, app):
    worker = start_worker(stage)
    for _ in range(2):
        app.send_task("celery_ops.tick", ignore_result=True, expires=60)
    app.send_task("demo.run", ["done"], ignore_result=True)
    over = lambda: (stage.directory / "done").exists() and worker.output.count("The tick can't be kept") == 2  # noqa: E731
    wait_until(over, 20, f"the ticks and the task:\n{worker.output}")
