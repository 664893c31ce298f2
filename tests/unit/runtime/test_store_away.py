"""A worker whose result store is away, where its main loop has to store something."""

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


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_worker_outlives_expired_and_revoked_tasks(stage, is_silent):
    with socket.create_server(("127.0.0.1", 0)) as store:  # accepts, and says nothing
        port = store.getsockname()[1]
        if not is_silent:
            store.close()
        app = application(stage.directory, TASK.format(port=port, directory=stage.directory))
        app.conf.result_backend = "disabled://"  # of this process, which only sends
        Revocations(stage.directory / "revoked", "by-operator").add(["revoked"])
        worker = stage.worker("1a2b3c4d", "-c", "1", "-l", "INFO")
        wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
        app.send_task("demo.run", ["late"], task_id="late", expires=datetime(2026, 1, 1, tzinfo=UTC))
        app.send_task("demo.run", ["cancelled"], task_id="revoked")
        app.send_task("demo.run", ["done"], ignore_result=True)
        said = [f"The state of task {name} can't be kept" for name in ("late", "revoked")]
        over = lambda: (stage.directory / "done").exists() and all(line in worker.output for line in said)  # noqa: E731
        wait_until(over, 20, f"all three:\n{worker.output}")
        assert not (stage.directory / "late").exists() and not (stage.directory / "cancelled").exists()
        assert worker.stop() == 0
