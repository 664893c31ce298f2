"""Entries of the schedule keep their options with a scheduler that keeps entries elsewhere, and loses some of them."""

import builtins
import json
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, beat, signals
from celery_ops.worker import schedule
from support.directory_broker import application
from support.stage import BIN
from support.wait import wait_until


class Table(beat.Scheduler):
    """Keeps of an entry what django-celery-beat's table has columns for; every sending makes a new entry of it."""

    class Entry(beat.ScheduleEntry):
        """One row."""

        def __init__(self, *arguments, options=None, **fields):
            kept = {name: value for name, value in (options or {}).items() if name in ("queue", "priority")}
            super().__init__(*arguments, options=kept, **fields)

    def setup_schedule(self):
        """Read the application's own schedule, as DatabaseScheduler does."""
        self.update_from_dict(self.app.conf.beat_schedule)


@pytest.fixture
def sent(monkeypatch):
    """The messages that are published, in order."""
    found = []

    @signals.before_task_publish.connect
    def publish(sender, headers, properties, routing_key, **_):
        found.append((sender, headers, routing_key, properties.get("priority")))

    yield found
    signals.before_task_publish.disconnect(publish)


@pytest.mark.parametrize("cls", [beat.Scheduler, Table])
def test_an_entry_is_sent_with_all_of_its_options(monkeypatch, sent, cls):
    monkeypatch.setattr(signals.beat_init, "receivers", [])
    app = Celery("demo", broker="memory://", set_as_current=False)
    options = {"expires": 60, "ignore_result": True, "queue": "seldom", "priority": 0}
    app.conf.beat_schedule = {"often": {"task": "demo.often", "schedule": 0.0, "options": options}}
    service = beat.Service(app=app, scheduler_cls=cls)
    scheduler = service.scheduler
    if cls is beat.Scheduler:
        scheduler.update_from_dict(app.conf.beat_schedule)
    schedule.connect()
    signals.beat_init.send(service)
    for _ in range(2):
        scheduler._heap = None
        scheduler.tick()
    assert len(sent) >= 2
    for name, headers, routing_key, priority in sent:
        assert (name, routing_key, priority) == ("demo.often", "seldom", 0)
        assert headers["expires"] is not None
        assert headers["ignore_result"] is True


def test_what_the_scheduler_has_of_an_entry_stays():
    entry = beat.ScheduleEntry(name="often", task="demo.often", schedule=1.0, options={"expires": 5})
    schedule.complete(entry, {"often": {"options": {"expires": 60, "queue": "seldom"}}})
    assert entry.options == {"expires": 5, "queue": "seldom"}


@pytest.mark.parametrize("written", [{}, {"other": {"options": {"queue": "a"}}}, {"often": {"options": None}}])
def test_an_entry_that_the_settings_do_not_have_is_left_alone(written):
    entry = beat.ScheduleEntry(name="often", task="demo.often", schedule=1.0, options={})
    assert schedule.complete(entry, written).options == {}


def scheduler_in(directory, python, entries=("nightly", "hourly")):
    """Celery's own scheduler, as the scheduler program starts it under a version of Python."""
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {name: {"task": f"demo.{name}", "schedule": 3600.0} for name in entries}
    service = beat.Service(app=app, schedule_filename=str(directory / f"beat-schedule-py{python}"))
    schedule.keep_last_runs(service.scheduler, schedule.last_runs_file(service.schedule_filename))
    return service.scheduler


def test_another_python_goes_on_from_the_last_runs_and_so_does_the_one_before(monkeypatch, tmp_path, capsys):
    long_ago = datetime.now(UTC) - timedelta(hours=5)
    old = scheduler_in(tmp_path, "3.11")
    old.schedule["nightly"].last_run_at, old.schedule["nightly"].total_run_count = long_ago, 7
    old.close()
    assert (tmp_path / "beat-schedule.json").exists()
    capsys.readouterr()
    new = scheduler_in(tmp_path, "3.13")
    assert "nightly: its last run is known from" in capsys.readouterr().out
    assert (new.schedule["nightly"].last_run_at, new.schedule["nightly"].total_run_count) == (long_ago, 7)
    assert new.schedule["hourly"].total_run_count == 0
    assert new.schedule["nightly"].is_due()[0], "what fell due in the meantime is sent"
    just_now = datetime.now(UTC)
    new.schedule["nightly"].last_run_at, new.schedule["nightly"].total_run_count = just_now, 8
    new.close()
    back = scheduler_in(tmp_path, "3.11")
    assert (back.schedule["nightly"].last_run_at, back.schedule["nightly"].total_run_count) == (just_now, 8)
    back.close()


def test_an_own_file_that_is_as_new_is_left_alone(tmp_path):
    first = scheduler_in(tmp_path, "3.11")
    first.schedule["nightly"].total_run_count = 7
    first.close()
    path = tmp_path / "beat-schedule.json"
    path.write_text(json.dumps({"nightly": ["2020-01-01T00:00:00+00:00", 7], "gone": ["2020-01-01T00:00:00+00:00", 9]}))
    again = scheduler_in(tmp_path, "3.11")
    assert again.schedule["nightly"].last_run_at.year > 2020
    again.close()


@pytest.mark.parametrize("text", ["{", "[]", '{"nightly": 3}', '{"nightly": ["yesterday", "x"]}'])
def test_last_runs_that_can_not_be_read_stop_no_scheduler(tmp_path, capsys, text):
    (tmp_path / "beat-schedule.json").write_text(text)
    scheduler = scheduler_in(tmp_path, "3.13")
    assert "can't be read, entries count from now on" in capsys.readouterr().out
    assert set(scheduler.schedule) >= {"nightly", "hourly"}
    scheduler.close()


def test_the_first_tick_is_due_at_once_and_no_later_one(monkeypatch, tmp_path):
    monkeypatch.setattr(signals.beat_init, "receivers", [])
    schedule.connect()
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {name: {"task": "demo", "schedule": 15.0} for name in ("celery-ops-tick", "mine")}
    file = str(tmp_path / "schedule")

    def due():
        service = beat.Service(app=app, schedule_filename=file)
        signals.beat_init.send(service)
        return service.scheduler, [name for name, entry in service.scheduler.schedule.items() if entry.is_due()[0]]

    scheduler, found = due()
    assert found == ["celery-ops-tick"]
    tick = scheduler.schedule["celery-ops-tick"]
    tick.last_run_at, tick.total_run_count = datetime.now(UTC), 1
    scheduler.close()
    scheduler, found = due()
    assert found == []
    scheduler.close()


def test_what_saves_in_a_signals_handler_waits_for_no_import(monkeypatch, tmp_path):
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {"mine": {"task": "demo", "schedule": 15.0}}
    scheduler = beat.Service(app=app, schedule_filename=str(tmp_path / "schedule")).scheduler
    load = builtins.__import__

    def half_way(name, *arguments):
        assert not name.startswith("celery_ops"), name  # the handler would find a module without its names
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", half_way)
    schedule.write_last_runs(scheduler, tmp_path / "runs.json")
    monkeypatch.undo()
    scheduler.close()
    assert "mine" in (tmp_path / "runs.json").read_text()


def test_a_scheduler_that_is_told_to_stop_ends_without_an_error(stage):
    application(stage.directory, "import celery_ops.tasks\n")
    command = (BIN / "celery", "-A", "demo", "beat", "-s", stage.directory / "schedule", "--pidfile=", "-l", "INFO")
    beat = stage.start(*command, options=("--chdir", stage.directory))
    wait_until(lambda: "Sending due task celery-ops-tick" in beat.output, 60, "its first tick")
    assert beat.stop() == 0
    assert "raised exception" not in beat.output, beat.output
    assert "celery-ops-tick" in (stage.directory / "schedule.json").read_text()
