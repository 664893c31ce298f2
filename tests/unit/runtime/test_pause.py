"""What is paused: the file, a real worker that heeds it (its broker is a directory), and a scheduler that is held."""

import contextlib
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import intake as hold
from celery_ops import pause
from celery_ops.cli.pause import await_idle, heeds, main, unknown
from celery_ops.worker import intake
from support.directory_broker import application
from support.stage import GENERATION, PROGRAM_NAME, RUNTIME
from support.wait import wait_until

TASK = """
@app.task(name="demo.run")
def run(name):
    Path("{directory}", name).touch()
"""


def entry(what, name="", until=None, since=1.0, **more):
    return {"what": what, "name": name, "since": since, "until": until, "who": "anna@control", "why": "", **more}


# The file.


def test_an_entry_whose_time_is_over_counts_for_nothing(tmp_path):
    path = tmp_path / "pause.json"
    pause.write(path, [entry("queue", "a", until=100.0), entry("queue", "b"), entry("nonsense", "c")])
    assert [one["name"] for one in pause.read(path, now=99.0)] == ["a", "b"]
    assert [one["name"] for one in pause.read(path, now=100.0)] == ["b"]
    assert pause.read(tmp_path / "none") == []
    for damaged in ("", "{", "[1]", '{"what": 1}', '[{"what": "queue"}]'):
        path.write_text(damaged)
        assert pause.read(path) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], set()),
        ([entry("queue", "a")], {"a"}),
        ([entry("queue", "other")], set()),
        ([entry("program", "shop-worker-default")], {"a", "b"}),
        ([entry("program", "shop-worker-mail")], set()),
        ([entry("host", "w1")], {"a", "b"}),
        ([entry("all")], {"a", "b"}),
        ([entry("scheduler")], set()),
    ],
)
def test_the_queues_of_a_program_that_are_paused(entries, expected):
    assert pause.paused_queues(entries, "shop-worker-default-1a2b3c4d", ["a", "b"]) == expected


def test_what_is_paused_again_is_paused_since_then_with_the_new_end():
    [one] = pause.added([entry("queue", "a", since=1.0)], [entry("queue", "a", since=9.0, until=50.0)])
    assert (one["since"], one["until"]) == (1.0, 50.0)


def test_on_a_full_disk_nothing_changes_and_the_command_says_what_to_look_at(tmp_path, monkeypatch, capsys):
    def full(_file):
        raise OSError(28, "No space left on device")

    path = tmp_path / "pause.json"
    pause.write(path, [entry("queue", "a")])
    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setenv("CELERY_OPS_STATE_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["add", json.dumps([entry("queue", "b")])])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"{path} can't be written (No space left on device). Nothing was changed. Look: df -h {tmp_path}" in said
    assert [one["name"] for one in pause.read(path)] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_pauses_at_the_same_time_both_count(tmp_path, monkeypatch, capsys):
    path, write, others = tmp_path / "pause.json", pause.write, []
    monkeypatch.setenv("CELERY_OPS_STATE_DIR", str(tmp_path))
    words = [sys.executable, "-m", "celery_ops.cli.pause", "add", json.dumps([entry("queue", "theirs")])]

    def while_another_one_begins(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(RUNTIME)}
        others.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL))
        with contextlib.suppress(subprocess.TimeoutExpired):
            others[0].wait(2)
        write(*arguments)

    monkeypatch.setattr(pause, "write", while_another_one_begins)
    with pytest.raises(SystemExit):
        main(["add", json.dumps([entry("queue", "ours")])])
    assert others[0].wait(20) == 0
    assert [one["name"] for one in pause.read(path)] == ["ours", "theirs"]


def test_a_queue_that_no_worker_here_has_is_named():
    found = [{"queues": ["shop"]}]
    assert unknown([entry("queue", "shpo"), entry("queue", "shop"), entry("all")], found) == ["shpo"]
    assert unknown([entry("queue", "shpo")], []) == [], "nothing is known of workers that are down"


def test_each_verb_removes_what_it_has_added():
    entries = [entry("queue", "a"), entry("queue", "b"), entry("all", by="maintenance")]
    assert pause.removed(entries, [("queue", "a")]) == entries[1:]
    assert pause.removed(entries) == entries[2:]
    assert pause.removed(entries, by="maintenance") == entries[:2]


def test_a_web_program_that_comes_after_a_deploys_pause_may_serve():
    assert pause.is_web_closed([entry("web")], "shop-web-1a2b3c4d")
    assert pause.is_web_closed([entry("web", "shop-web-1a2b3c4d")], "shop-web-1a2b3c4d")
    assert not pause.is_web_closed([entry("web", "shop-web-1a2b3c4d")], "shop-web-5e6f7a8b")
    assert not pause.is_web_closed([entry("all")], "shop-web-1a2b3c4d")


# A worker; test_intake.py has more of it.


@pytest.fixture
def app(stage):
    return application(stage.directory, TASK.format(directory=stage.directory))


def test_a_worker_that_a_deploy_holds_says_so_at_once_and_goes_on_when_it_is_let_go(stage, app):
    started = stage.worker(GENERATION, "-P", "solo", "-l", "INFO")
    wait_until(lambda: " ready." in started.output, 30, f"the worker:\n{started.output}")
    since = hold.hold(stage.run, [PROGRAM_NAME])
    wait_until(lambda: hold.is_held(stage.run, PROGRAM_NAME, since), 3, "the heartbeat of a worker that is held")
    app.send_task("demo.run", ["held"])
    assert hold.let_go(stage.run, PROGRAM_NAME) and not hold.let_go(stage.run, PROGRAM_NAME)
    wait_until((stage.directory / "held").exists, 20, f"the task:\n{started.output}")
    assert not hold.is_held(stage.run, PROGRAM_NAME, since)


def test_what_is_held_goes_on_by_itself_after_its_time_and_after_a_reboot(tmp_path):
    now, path = time.monotonic(), tmp_path / "x.hold"
    held = intake.Intake(tmp_path / "pause.json", "x", path)
    assert not held.is_held
    for since, until, expected in ((now, now + 60, True), (now - 60, now - 1, False), (now + 60, now + 120, False)):
        path.write_text(json.dumps({"since": since, "until": until}))
        assert held.is_held is expected
    path.write_text("{")
    assert not held.is_held


def test_the_command_waits_for_workers_that_do_not_heed_the_file_yet():
    worker = {"name": "shop-worker-default-1a2b3c4d", "queues": ["a", "b"], "paused": None}
    assert heeds(worker, [])
    assert not heeds(worker, [entry("all")])
    assert heeds({**worker, "paused": ["a", "b"]}, [entry("all")])
    assert not heeds({**worker, "paused": ["a", "b"]}, [entry("queue", "a")])


# A scheduler.


def test_a_clock_that_is_set_back_does_not_make_an_idle_worker_one_that_runs_a_task(tmp_path):
    beat = {"kind": "worker", "pid": os.getpid(), "state": "ready", "since": 0.0, "due": 0.0, "active": 0}
    file, later = tmp_path / f"{GENERATION}.heartbeat", time.monotonic() + 60
    file.write_text(json.dumps({**beat, "beat": later, "time": time.time() - 3600}))
    assert await_idle(tmp_path, 0.1) == []
    file.write_text(json.dumps({**beat, "beat": later - 120, "time": time.time() + 3600}))
    assert await_idle(tmp_path, 0.1) == [GENERATION], "of a moment before it was asked"


def test_a_scheduler_that_is_held_sends_nothing_and_then_goes_on(tmp_path):
    path, ticks = tmp_path / "pause.json", []
    scheduler = SimpleNamespace(tick=lambda *_, **__: ticks.append(1) or 7.0)
    intake.hold(SimpleNamespace(scheduler=scheduler), path)
    assert scheduler.tick() == 7.0
    pause.write(path, [entry("scheduler")])
    assert [scheduler.tick(), scheduler.tick()] == [intake.EVERY] * 2
    assert len(ticks) == 1
    pause.write(path, [entry("scheduler", until=1.0)])
    assert scheduler.tick() == 7.0
    assert len(ticks) == 2
