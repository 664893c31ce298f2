"""Tasks as the workers' own files tell them: real workers, whose broker here is a directory."""

import json
import re
import time

import pytest
from celery import Celery
from celery_ops import proc, task_lists
from celery_ops.cli import tasks
from celery_ops.errors import RetryLater
from celery_ops.layout import REQUESTS
from celery_ops.task_lists import Chosen
from support.directory_broker import application
from support.stage import APP, GENERATION, PROGRAM_NAME
from support.wait import wait_until

TASK = """
import time
@app.task(name="demo.work")
def work(name, secret=""):
    Path("{directory}", name).touch()
    while not Path("{directory}", "end").exists():
        time.sleep(0.05)
@app.task(name="demo.slowly", rate_limit="1/h")
def slowly(name):
    pass
"""


@pytest.fixture
def app(stage):
    return application(stage.directory, TASK.format(directory=stage.directory))


def lists(stage):
    return task_lists.read(APP, stage.run, REQUESTS, proc.start_of)


def names(found, kind):
    return [task["id"] for one in found for task in one[kind]]


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_what_runs_is_in_the_file_while_the_worker_is_busy(stage, app, pool):
    worker = stage.worker(GENERATION, "-P", pool, "-c", "1", "-l", "INFO", "--prefetch-multiplier", "4")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
    app.send_task("demo.work", ["later"], task_id="later", countdown=600)
    wait_until(lambda: "[later] received" in worker.output, 20, "the one with an ETA")
    # One after the other: of two in the same millisecond the directory knows no order.
    app.send_task("demo.work", ["one"], {"secret": "s3cr3t"}, task_id="one")
    wait_until(lambda: names(lists(stage), "running") == ["one"], 20, "the running task")
    app.send_task("demo.work", ["two"], {"secret": "s3cr3t"}, task_id="two")
    if pool != "solo":  # whose loop takes nothing more meanwhile
        wait_until(lambda: names(lists(stage), "waiting") == ["two"], 20, "the one behind it")
        wait_until(lambda: names(lists(stage), "scheduled") == ["later"], 20, "it")
    [found] = lists(stage)
    assert (found["program"], found["generation"]) == ("worker-default", PROGRAM_NAME)
    assert found["running"][0]["name"] == "demo.work" and time.time() - found["running"][0]["since"] < 60
    text = (stage.run / f"{PROGRAM_NAME}{REQUESTS}").read_text()
    assert "s3cr3t" not in text and "args" not in text
    stage.directory.joinpath("end").touch()
    wait_until(lambda: names(lists(stage), "running") == [], 20, "its end")
    worker.stop()
    assert lists(stage) == []


def test_what_waits_for_its_rate_limit_is_in_the_file(stage, app):
    worker = stage.worker(GENERATION, "-P", "threads", "-c", "1", "-l", "INFO", "--prefetch-multiplier", "4")
    wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
    stage.directory.joinpath("end").touch()
    for name in ("limited-1", "limited-2", "limited-3"):
        app.send_task("demo.slowly", [name], task_id=name)
    wait_until(lambda: worker.output.count("] received") == 3, 20, "all of them received")
    [done] = wait_until(lambda: re.findall(r"demo.slowly\[(limited-\d)\] succeeded", worker.output), 20, "one that ran")
    others = {"limited-1", "limited-2", "limited-3"} - {done}
    wait_until(lambda: {*names(lists(stage), "waiting")} == others, 20, "the others")
    worker.stop()


def write(run, program="shop-worker-a-11111111", start=7, **content):
    found = {"program": program, "pid": 1, "start": start, "release": "r1", "time": 1000.0, "left_out": 0}
    found |= {"running": [], "waiting": [], "scheduled": [], **content}
    (run / f"{program}.requests").write_text(json.dumps(found))


def test_files_of_workers_that_are_gone_and_half_a_file_are_left_out(tmp_path):
    write(tmp_path)
    write(tmp_path, "shop-worker-b-22222222", start=8)
    (tmp_path / "shop-worker-c-33333333.requests").write_text('{"pid": 1,')
    assert [one["program"] for one in task_lists.read("shop", tmp_path, ".requests", lambda pid: 7)] == ["worker-a"]


def test_what_is_shown(tmp_path):
    old = {"id": "1", "name": "shop.report", "root": "1", "since": 820.0, "pid": 9}
    new = {"id": "2", "name": "shop.add", "root": "1", "since": 996.0, "pid": 9}
    write(
        tmp_path,
        running=[new, old],
        scheduled=[{"id": "3", "name": "shop.add", "root": "3", "eta": "2026-11-26 18:00"}],
    )
    write(tmp_path, "shop-worker-b-22222222", time=970.0, left_out=5)
    found = {"w1": task_lists.read("shop", tmp_path, ".requests", lambda pid: 7)}
    assert task_lists.lines(found, Chosen(), 1000.0) == [
        "RUNNING: 2",
        "    3 min  shop.report  1  w1 worker-a  release r1",
        "      4 s  shop.add  2  w1 worker-a  release r1",
        "WAITING in workers: 0",
        "SCHEDULED in workers: 1",
        "  at 2026-11-26 18:00  shop.add  3  w1 worker-a  release r1",
        "w1 worker-b: as of 30 s ago; its main loop is blocked or reconnecting",
        "w1 worker-b: 5 more",
    ]
    some = task_lists.lines(found, Chosen(name="shop.r*", program="worker-*"), 1000.0, {"1": "args (1,)"})
    assert some[:3] == ["RUNNING: 1", "    3 min  shop.report  1  w1 worker-a  release r1", "           args (1,)"]
    assert task_lists.lines(found, Chosen(id="2"), 1000.0)[0] == "RUNNING: 1"
    assert task_lists.lines(found, Chosen(id="2,nowhere"), 1000.0)[0] == "RUNNING: 1"


def test_a_revocation_without_a_broker_says_so(monkeypatch):
    app = Celery("demo", broker="amqp://127.0.0.1:1//", set_as_current=False)
    monkeypatch.setattr(tasks, "loaded", lambda _: app)
    with pytest.raises(RetryLater, match=r"the broker can't be reached: .*Revocations are kept"):
        tasks.send(tasks._options(["revoke", "--id", "7"]))
