"""Revoked tasks across generations: real workers, whose broker here is a directory."""

import os
import time
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker import state
from celery.worker.control import Panel
from celery_ops.worker import revoked
from celery_ops.worker.revoked import KEEP, Revocations
from support.directory_broker import application
from support.wait import wait_until

TASK = """
@app.task(name="demo.run")
def run(name):
    Path("{directory}", name).touch()
"""


@pytest.fixture
def app(stage):
    return application(stage.directory, TASK.format(directory=stage.directory))


def test_a_task_that_was_revoked_before_a_deploy_does_not_run_after_it(stage, app):
    def start(generation):
        started = stage.worker(generation, "-P", "solo", "-l", "INFO")
        wait_until(lambda: " ready." in started.output, 30, f"the worker:\n{started.output}")
        return started

    old = start("1a2b3c4d")
    app.control.revoke(["gone", "also"])
    app.control.revoke_by_stamped_headers({"order": ["7", "8"], "customer": "x"})
    wait_until(lambda: "flagged as revoked" in old.output, 20, "the revocation")
    kept = stage.directory / "revoked"
    wait_until(lambda: any('["customer", "x"]' in file.read_text() for file in kept.iterdir()), 20, "that by stamps")
    assert old.stop() == 0
    new = start("5e6f7a8b")
    for name, stamps in (("gone", {}), ("also", {}), ("order 8", {"order": "8"}), ("of x", {"customer": ["x", "y"]})):
        app.send_task("demo.run", [name], task_id=name, stamped_headers=[*stamps], **stamps)
    app.send_task("demo.run", ["kept"], task_id="kept", stamped_headers=["order"], order="9")
    wait_until((stage.directory / "kept").exists, 20, f"the task that was not revoked:\n{new.output}")
    assert not [name for name in ("gone", "also", "order 8", "of x") if (stage.directory / name).exists()]


@pytest.fixture
def memory(monkeypatch):
    """As much of a worker's memory as counts here."""
    monkeypatch.setattr(state, "revoked_stamps", {})
    monkeypatch.setattr(state, "revoked", type(state.revoked)(maxlen=50_000, expires=10_800))
    return state.revoked


def test_what_any_worker_of_the_host_noted_is_known_to_the_next(tmp_path, memory):
    Revocations(tmp_path / "revoked", "one").add(["a", 'b "c"\n', "ä/.."])
    Revocations(tmp_path / "revoked", "two").add(["d"])
    Revocations(tmp_path / "revoked", "three").load()
    assert set(memory) == {"a", 'b "c"\n', "ä/..", "d"}


@pytest.mark.parametrize(("own", "left"), [("", {"yesterday"}), ("7200", set())])
def test_another_worker_that_starts_makes_this_one_forget_nothing(tmp_path, memory, monkeypatch, own, left):
    monkeypatch.setattr(Panel, "data", {**Panel.data})
    monkeypatch.setenv("CELERY_WORKER_REVOKE_EXPIRES", own)
    revoked._keep(Revocations(tmp_path / "revoked", "one"))
    memory.add("yesterday", time.monotonic() - 86400)
    app = Celery("demo", broker="memory://", set_as_current=False)
    Panel.data["hello"](SimpleNamespace(hostname="here", app=app), "another", {})
    assert set(memory) == left


def test_old_ones_and_half_a_line_are_left_out(tmp_path, memory):
    kept = Revocations(tmp_path / "revoked", "one")
    kept.add(["new"])
    with kept.own.open("a") as file:
        file.write(f'{int(time.time()) - KEEP - 9} "old"\n{int(time.time())} "ha')
    Revocations(tmp_path / "revoked", "long-gone").add(["long ago"])
    os.utime(tmp_path / "revoked/long-gone", (0, 0))
    kept.load()
    assert set(memory) == {"new"}
    assert [path.name for path in (tmp_path / "revoked").iterdir()] == ["one"]


def test_an_application_that_revokes_all_day_fills_no_disk_and_its_workers_start_soon(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(revoked, "LARGEST", 2000)
    monkeypatch.setattr(revoked, "MOST", 20)
    kept = Revocations(tmp_path / "revoked", "one")
    for number in range(500):
        kept.add([f"task {number}"])
        assert kept.own.stat().st_size <= 2000
    before = int(time.time()) - 3600
    (tmp_path / "revoked/before").write_text(f'{before} "task -1"\n')
    os.utime(tmp_path / "revoked/before", (before, before))
    kept.load()
    assert set(memory) == {f"task {number}" for number in range(480, 500)}
    assert [path.name for path in (tmp_path / "revoked").iterdir()] == ["one"]


def test_stamps_are_known_once_and_the_newest_of_too_many(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(revoked, "MOST_STAMPS", 3)
    state.revoked_stamps["single"] = "as Celery takes it"
    kept = Revocations(tmp_path / "revoked", "one")
    kept.add([("order", 1), ("order", 2), "an id", ("order", 3), ("single", "b")])
    with kept.own.open("a") as file:
        file.write(f'{int(time.time())} ["half"]\n{int(time.time())} ["order", {{}}]\n')
    kept.load()
    kept.load()
    assert state.revoked_stamps == {"order": [2, 3], "single": ["as Celery takes it", "b"]}
    assert set(memory) == {"an id"}


def test_a_file_that_can_not_be_read_hides_no_other(tmp_path, memory):
    Revocations(tmp_path / "revoked", "one").add(["a"])
    (tmp_path / "revoked/another").mkdir()
    (tmp_path / "revoked/gone").symlink_to("nowhere")
    Revocations(tmp_path / "revoked", "zero").load()
    assert set(memory) == {"a"}


def test_a_directory_that_can_not_be_written_ends_no_worker(tmp_path, memory):
    (tmp_path / "revoked").write_text("a file")
    kept = Revocations(tmp_path / "revoked", "one")
    kept.add(["a"])
    kept.load()
    assert not set(memory)
