"""A time limit that an operator sets beats the one in the message."""

import pytest
from support.directory_broker import application
from support.stage import GENERATION
from support.wait import wait_until

TASK = """
import time
@app.task(name="demo.sleep")
def sleep():
    time.sleep(60)
"""


def test_it_holds_for_a_message_that_carries_its_own(stage):
    app = application(stage.directory, TASK)
    worker = stage.worker(GENERATION, "-P", "prefork", "-c", "1", "-l", "INFO")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
    app.control.time_limit("demo.sleep", hard=1.5)
    wait_until(lambda: "New time limits" in worker.output, 20, f"the limit:\n{worker.output}")
    sent = app.send_task("demo.sleep", time_limit=300)
    said = f"Hard time limit (1.5s) exceeded for demo.sleep[{sent.id}]"
    wait_until(lambda: said in worker.output, 20, f"its end:\n{worker.output}")
    assert "Pool callback raised exception" not in worker.output


@pytest.mark.parametrize("name", ["demo.unknown"])
def test_an_unknown_task_is_refused_as_before(stage, name):
    app = application(stage.directory, TASK)
    worker = stage.worker(GENERATION, "-P", "solo", "-l", "INFO")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
    app.control.time_limit(name, hard=2)
    wait_until(lambda: "unknown task" in worker.output, 20, worker.output)
