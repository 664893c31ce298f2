"""A run that was sent twice is done once: a real worker, whose broker here is a directory."""

import pytest
from celery_ops.worker.ticks import HEADER, MOST, Known
from support.directory_broker import application
from support.wait import wait_until

TASK = """
@app.task(name="demo.run")
def run(name):
    with Path("{directory}", name).open("a") as file:
        file.write("ran\\n")
"""


@pytest.fixture
def app(stage):
    return application(stage.directory, TASK.format(directory=stage.directory))


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_second_message_of_a_run_is_refused_and_one_that_is_delivered_again_is_not(stage, app, pool):
    worker = stage.worker("1a2b3c4d", "-P", pool, "-c", "1", "-l", "INFO")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")

    def send(name, task_id, number):
        app.send_task("demo.run", [name], task_id=task_id, headers={HEADER: number} if number else None)

    send("twice", "one", "a 1")
    send("twice", "one", "b 1")
    send("again", "two", "a 2")
    send("again", "two", "a 2")
    send("others", "three", None)
    send("others", "three", None)
    send("last", "four", "b 2")
    wait_until((stage.directory / "last").exists, 20, f"the last one:\n{worker.output}")
    counts = {name: (stage.directory / name).read_text().count("ran") for name in ("twice", "again", "others", "last")}
    assert counts == {"twice": 1, "again": 2, "others": 2, "last": 1}
    assert worker.output.count("Refused demo.run[one]") == 1
    assert not list((stage.directory / "data").iterdir()), "the refused one was acknowledged"


def test_an_id_is_known_for_long_and_not_for_ever():
    known = Known()
    assert known.first("one", "a") == "a"
    assert known.first("one", "b") == "a"
    for number in range(MOST):
        known.first(str(number), "a")
    assert known.first("one", "b") == "b"
    assert len(known.own) == MOST


def test_what_another_worker_received_first_is_told_by_the_store():
    known = Known({"one": "a"}.get)
    assert known.first("one", "b") == "a"
