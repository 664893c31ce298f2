"""Entries of the schedule keep their options with a scheduler that keeps entries elsewhere, and loses some of them."""

import pytest
from celery import Celery, beat, signals
from celery_ops.worker import schedule


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
