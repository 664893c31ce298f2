"""JSON logs: real workers. What an application has configured itself stays as it is."""

import json

import pytest
from support.directory_broker import application
from support.stage import GENERATION, PROGRAM_NAME
from support.wait import wait_until

TASK = """
import logging
from celery.utils.log import get_task_logger
@app.task(name="demo.say")
def say(text):
    get_task_logger(__name__).warning("it says %s", text)
    logging.getLogger("own").warning("and more")
    raise ValueError("no\\nmore")
"""
OWN = {
    "handlers of its own": """
import logging
logging.basicConfig(format="OWN %(message)s", level="INFO")
""",
    "the signal": """
import logging
from celery import signals
signals.setup_logging.connect(lambda **_: logging.basicConfig(format="OWN %(message)s", level="INFO"), weak=False)
""",
    "a format": """
app.conf.worker_log_format = "OWN %(message)s"
""",
}


def worker_of(stage, code, **environment):
    app = application(stage.directory, TASK + code)
    worker = stage.worker(GENERATION, "-P", "prefork", "-c", "1", "-l", "INFO", environment=environment)
    wait_until(lambda: "ready" in worker.output, 30, f"the worker:\n{worker.output}")
    app.send_task("demo.say", ["so"], task_id="id-1", root_id="root-1")
    wait_until(lambda: has_failed(worker.output), 20, "the task")
    return worker


def has_failed(output):
    """Whether the line that the task raised is written, to its end."""
    return "more" in output.partition("raised")[2] and output.endswith("\n")


def test_a_line_is_an_object_with_its_task(stage):
    worker = worker_of(stage, "", CELERY_OPS_LOG_FORMAT="json")
    lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    by_message = {line["message"].split("\n")[0]: line for line in lines}
    of_task = {"task": "demo.say", "task_id": "id-1", "root_id": "root-1", "program": PROGRAM_NAME}
    for message in ("it says so", "and more"):
        assert of_task.items() <= by_message[message].items(), lines
    assert by_message["Task demo.say[id-1] received"]["task_id"] == "id-1"
    [failed] = [line for line in lines if line["level"] == "ERROR"]
    assert "ValueError: no\nmore" in failed["exception"] and failed["root_id"] == "root-1"
    assert {"time", "logger", "process", "release"} <= set(failed)
    assert by_message["it says so"]["time"].endswith("+00:00")


@pytest.mark.parametrize("own", OWN)
def test_a_configuration_of_its_own_stays(stage, own):
    worker = worker_of(stage, OWN[own], CELERY_OPS_LOG_FORMAT="json")
    assert "OWN " in worker.output
    assert not any(line.startswith('{"time"') for line in worker.output.splitlines()), worker.output


def test_text_unless_asked(stage):
    assert '{"time"' not in worker_of(stage, "").output
