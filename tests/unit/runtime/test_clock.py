"""The scheduler and a clock that was set back, with Celery's own scheduler and its file."""

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, beat, signals
from celery.schedules import crontab
from celery_ops.worker import clock

HOUR = timedelta(hours=1)


@pytest.fixture
def app():
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.finalize()  # before the schedule: celery_ops.tasks, if another test has imported it, adds the tick
    app.conf.beat_schedule = {
        "often": {"task": "demo.often", "schedule": 30.0},
        "seldom": {"task": "demo.seldom", "schedule": 86400.0},
    }
    return app


@pytest.fixture
def service(app, tmp_path):
    """What `celery beat` runs, with its own scheduler and that one's file."""
    service = beat.Service(app=app, schedule_filename=str(tmp_path / "schedule"))
    yield service
    service.scheduler.close()


@pytest.fixture
def scheduler(service):
    return service.scheduler


def ran(scheduler, name, ago):
    entry = scheduler.schedule[name]
    entry.last_run_at = entry.default_now() - ago
    scheduler._heap = None


def test_an_entry_that_ran_in_the_future_counts_from_now(scheduler):
    ran(scheduler, "often", -HOUR)
    ran(scheduler, "seldom", HOUR)
    untouched = scheduler.schedule["seldom"].last_run_at
    assert scheduler.tick() > 60, "without help beat waits for the clock to come there again"

    assert clock.put_right(scheduler) == ["often"]
    assert 25 < scheduler.tick() <= 30
    assert scheduler.schedule["seldom"].last_run_at == untouched
    assert clock.put_right(scheduler) == []


def test_a_clock_that_is_slewed_is_left_alone(scheduler):
    ran(scheduler, "often", timedelta(seconds=-2))
    assert clock.put_right(scheduler) == []


def test_an_entry_with_a_clock_of_its_own_that_has_no_time_zone_ends_no_scheduler(app, service, scheduler):
    app.conf.beat_schedule["own"] = {"task": "demo.own", "schedule": crontab(nowfun=datetime.now)}
    scheduler.setup_schedule()
    assert scheduler.schedule["own"].last_run_at.tzinfo is None
    assert clock.put_right(scheduler) == []
    ran(scheduler, "own", -HOUR)
    assert clock.put_right(scheduler) == ["own"]
    assert scheduler.tick() <= 60


class Nightly:
    """A schedule with what beat asks of one, and no more."""

    def now(self):
        return datetime.now(UTC)

    def is_due(self, last_run_at):
        return False, 60.0


def test_a_schedule_of_the_applications_own_class_ends_no_scheduler(app, service, scheduler):
    app.conf.beat_schedule["own"] = {"task": "demo.own", "schedule": Nightly()}
    scheduler.setup_schedule()
    assert scheduler.tick() <= 60
    assert clock.put_right(scheduler) == []
    ran(scheduler, "own", -HOUR)
    assert clock.put_right(scheduler) == ["own"]


def test_every_tick_looks(service, scheduler, monkeypatch):
    monkeypatch.setattr(signals.beat_init, "receivers", [])
    clock.connect()
    signals.beat_init.send(service)
    ran(scheduler, "often", -HOUR)
    assert 25 < scheduler.tick() <= 30


def test_a_scheduler_of_anothers_is_left_alone(app, monkeypatch):
    monkeypatch.setattr(signals.beat_init, "receivers", [])
    clock.connect()
    service = beat.Service(app=app, scheduler_cls=beat.Scheduler)
    signals.beat_init.send(service)
    assert "tick" not in vars(service.scheduler)
