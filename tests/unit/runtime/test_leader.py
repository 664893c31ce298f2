"""Beat under the lease: what it sends, under which id, where it ends. With a broker: tests/fleet/test_scheduler.py."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from celery import Celery, beat, signals
from celery_ops.lease import leave as leaving
from celery_ops.lease import scheduler as leading
from celery_ops.lease.queue import caused_by, why_of
from celery_ops.lease.scheduler import Leader, apply_runs, id_of, run_of
from celery_ops.lease.state import FENCE, Lease, Lost, State, Token
from celery_ops.worker.schedule import keep_last_runs
from celery_ops.worker.ticks import HEADER
from support.wait import wait_until

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Queue:
    """The lease's queue of a candidate that leads, without a broker."""

    by = "one@host"

    def __init__(self, app):
        self.app, self.lease, self.told = app, Lease(self.by), []
        self.producer = None
        self.renew_producer()

    def renew_producer(self):
        self.producer = self.app.amqp.Producer(self.app.connection_for_write().channel(), auto_declare=False)

    def renew(self, runs):
        self.told.append(dict(runs))
        self.lease.received(len(self.told), self.lease.renewal(leading.now(), runs))
        self.lease.state = State.LEADING

    def refuse_to_send_late(self):
        if not self.lease.may_send(leading.now()):
            raise Lost("too late")

    def is_broken(self, error):
        return "gone" in str(error)

    def close(self):
        pass


class Ended(BaseException):
    """In the place of the process's end."""


@pytest.fixture
def app():
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "leader"  # the broker in memory is one for all tests of this process
    app.conf.beat_schedule = {
        "often": {"task": "demo.often", "schedule": 0.001, "options": {"headers": {"own": 1}}},
        "seldom": {"task": "demo.seldom", "schedule": 3600.0},
    }
    return app


@pytest.fixture
def sent():
    found = []

    def publish(sender, headers, **_):
        found.append((sender, headers["id"], headers.get(HEADER), headers.get("own")))

    signals.after_task_publish.connect(publish)
    yield found
    signals.after_task_publish.disconnect(publish)


@pytest.fixture
def leader(app, monkeypatch, tmp_path):
    """Make a leader of a scheduler of its own, after a token."""

    def end(why):
        raise Ended(why)

    monkeypatch.setattr(leading, "give_up", end)
    monkeypatch.setattr(leading, "now", lambda: 100.0)  # however long a busy machine takes
    monkeypatch.setattr(leading.threading.Thread, "start", lambda _: None)
    monkeypatch.setattr(leading.signal, "signal", lambda *_: None)

    def make(newest=None, name="schedule"):
        scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / name))
        queue = Queue(app)
        queue.lease.newest = newest or Token(0, "")
        made = Leader(scheduler, queue)
        made.take_over()
        return made

    return make


def tick_until(leader, sent, count):
    wait_until(lambda: leader.scheduler.tick() is not None and len(sent) >= count, 20, f"{count} runs, not {sent}")


def test_a_run_has_the_same_id_with_each_leader_that_knows_of_the_run_before(leader, sent):
    first = leader()
    before = first.queue.lease.newest
    tick_until(first, sent, 1)
    second = leader(Token(before.seq, "one@host", before.runs), "elsewhere")
    tick_until(second, sent, 2)
    (_, one, number, own), (_, other, other_number, _) = sent[:2]
    assert one == other, "it does not know that it was sent"
    assert number is not None and other_number is not None and own == 1
    third = leader(first.queue.lease.newest, "anywhere")
    tick_until(third, sent, 3)
    assert sent[2][1] != one, "it knows"


def test_each_message_has_a_number_of_its_own(leader, sent):
    tick_until(leader(), sent, 5)
    assert len({number for _, _, number, _ in sent}) == len({task_id for _, task_id, _, _ in sent}) == len(sent)


def test_the_lease_tells_of_a_run_as_soon_as_it_is_sent(leader, sent):
    one = leader()
    tick_until(one, sent, 1)
    assert one.queue.told[-1]["often"] == run_of(one.scheduler.schedule["often"])
    assert one.queue.told[-1]["often"][1] == len(sent)
    assert set(one.queue.told[0]) >= {"often", "seldom"}, "also of what has not run"


def test_the_lease_does_not_tell_of_entries_that_are_gone_for_ever(leader, monkeypatch):
    monkeypatch.setattr(leading, "GONE", 3)
    one = leader()
    known = set(one.runs)
    for number in range(10):
        one.runs[f"once {number}"] = (LONG_AGO.isoformat(), 1)
        one.scheduler.tick()
        assert len(one.runs) <= len(known) + 3
    assert known <= set(one.runs)


def test_nothing_is_sent_after_the_time_for_which_the_lease_is_certain(leader, sent, monkeypatch):
    one = leader()
    later = leading.now() + FENCE
    monkeypatch.setattr(leading, "now", lambda: later)
    monkeypatch.setattr(one.queue.lease, "due_in", lambda _: 1.0)  # it has slept, and does not come to renew
    with pytest.raises(Ended, match="too late"):
        tick_until(one, sent, 1)
    assert not sent


def test_it_ends_where_the_way_to_the_broker_is_broken(leader, monkeypatch):
    one = leader()

    def fail(*_, **__):
        raise OSError("the connection is gone")

    monkeypatch.setattr(one, "_apply_async", fail)
    with pytest.raises(Ended, match="often could not be sent"):
        tick_until(one, [], 1)


def test_an_entry_that_can_not_be_sent_is_left_out_and_ends_nothing(leader, app, sent, caplog):
    app.conf.beat_schedule["often"]["args"] = (object(),)
    one = leader()
    for _ in range(5):
        one.scheduler.tick()
    assert not sent
    assert "Message Error" in caplog.text
    assert one.queue.told[-1]["often"][1] > 0


def test_a_wait_is_no_longer_than_until_the_next_renewal(leader, app):
    del app.conf.beat_schedule["often"]
    assert leader().scheduler.tick() <= 1.5


def test_told_to_stop_in_a_tick_it_renews_first(leader, sent, monkeypatch):
    one = leader()
    reserve = one.scheduler.reserve
    monkeypatch.setattr(one.scheduler, "reserve", lambda entry: one.stop() or reserve(entry))
    with pytest.raises(SystemExit):
        tick_until(one, sent, 1)
    assert one.queue.told[-1]["often"][1] == len(sent) == 1


def test_runs_of_the_leader_before_count_more_than_what_is_kept_here(app, tmp_path):
    scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    apply_runs(scheduler, {"seldom": (LONG_AGO.isoformat(), 41), "gone": (LONG_AGO.isoformat(), 1)})
    entry = scheduler.schedule["seldom"]
    assert (entry.last_run_at, entry.total_run_count) == (LONG_AGO, 41)
    assert entry.is_due().is_due, "what fell due meanwhile is sent now"
    assert "gone" not in scheduler.schedule


def test_a_row_of_a_database_goes_on_as_well(app):
    class Row:
        last_run_at, total_run_count, no_changes = None, 0, False

    class Entry:
        name, model, saved = "nightly", Row(), 0
        last_run_at, total_run_count = LONG_AGO - timedelta(days=1), 40

        def save(self):
            self.saved += 1

    entry = Entry()
    table = SimpleNamespace(schedule={"nightly": entry}, app=app)
    apply_runs(table, {"nightly": (LONG_AGO.isoformat(), 41)})
    assert (entry.model.last_run_at, entry.model.total_run_count, entry.model.no_changes) == (LONG_AGO, 41, True)
    assert entry.saved == 1
    apply_runs(table, {"nightly": (LONG_AGO.isoformat(), 41)})
    assert entry.saved == 1


def test_an_entry_goes_on_in_the_time_zone_of_the_application(app, tmp_path):
    """Else a crontab's next run would be an hour off when the clocks change."""
    app.conf.timezone = "Europe/Berlin"
    scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    apply_runs(scheduler, {"seldom": ("2026-03-28T02:00:00+00:00", 1)})
    entry = scheduler.schedule["seldom"]
    assert entry.last_run_at.tzinfo == app.timezone
    assert run_of(entry) == ("2026-03-28T02:00:00+00:00", 1), "the same for each leader"


def test_ids_differ_by_entry_and_by_run():
    one = beat.ScheduleEntry(name="one", task="a", schedule=1.0, last_run_at=LONG_AGO)
    later = beat.ScheduleEntry(name="one", task="a", schedule=1.0, last_run_at=LONG_AGO + timedelta(seconds=1))
    other = beat.ScheduleEntry(name="other", task="a", schedule=1.0, last_run_at=LONG_AGO)
    assert len({id_of(one), id_of(later), id_of(other)}) == 3
    assert id_of(one) == id_of(beat.ScheduleEntry(name="one", task="b", schedule=2.0, last_run_at=LONG_AGO))


def test_a_file_of_this_host_counts_only_for_the_first_leader(leader, app, tmp_path):
    def last_runs(scheduler):
        path = tmp_path / "runs.json"
        path.write_text('{"seldom": ["2026-01-01T00:00:00+00:00", 50]}')
        keep_last_runs(scheduler, path)
        return scheduler.schedule["seldom"].total_run_count

    assert last_runs(leader().scheduler) == 50
    later = leader(Token(3, "another@host", {"seldom": (LONG_AGO.isoformat(), 49)}), "elsewhere")
    assert last_runs(later.scheduler) == 49


def test_the_reason_is_the_first_of_a_chain_of_errors():
    def raised(first):
        try:
            try:
                raise first
            except Exception as error:
                raise beat.SchedulingError("Couldn't apply scheduled task often: ") from error
        except beat.SchedulingError as error:
            return error

    assert why_of(raised(TimeoutError())) == "no answer in time"
    assert why_of(raised(OSError("reset"))) == "OSError: reset"
    assert caused_by(raised(OSError("reset")), OSError)
    assert not caused_by(raised(ValueError("x")), OSError)


def test_a_scheduler_that_is_alone_again_goes_on_where_the_lease_ended(app, monkeypatch, tmp_path):
    later = (LONG_AGO + timedelta(days=1)).isoformat()
    held = [Token(0, "two@host"), Token(9, "two@host", {"often": (later, 7), "seldom": (later, 1)}), Token(0, "me")]
    acknowledged = []

    class Turn(Queue):
        channel = SimpleNamespace(basic_ack=acknowledged.append)
        queue = "celery-ops.scheduler.demo"

        def __init__(self, app, name, by):
            self.lease = Lease(by)
            self.lease.held, self.lease.newest = dict(enumerate(held, 1)), held[1]

        def await_turn(self, meanwhile):
            return self.lease.newest.runs

    monkeypatch.setattr(leaving, "LeaseQueue", Turn)
    monkeypatch.setattr(leaving, "is_there", lambda app, name: True)
    monkeypatch.setenv("CELERY_OPS_PROGRAM", "demo-scheduler")
    scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    apply_runs(scheduler, {"often": (LONG_AGO.isoformat(), 3), "seldom": (LONG_AGO.isoformat(), 2)})
    app.conf.broker_url = "amqp://"
    leaving.leave(scheduler)
    assert run_of(scheduler.schedule["often"]) == (later, 7)
    assert run_of(scheduler.schedule["seldom"]) == (LONG_AGO.isoformat(), 2), "a lease of long ago"
    assert acknowledged == [1, 2, 3], "a token of long ago would make all entries due"
    scheduler.close()
    again = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    assert run_of(again.schedule["often"]) == (later, 7), "saved before the token has gone"


def test_the_token_stays_where_its_runs_could_not_be_saved(app, monkeypatch, tmp_path, capsys):
    acknowledged = []

    class Turn(Queue):
        channel, queue = SimpleNamespace(basic_ack=acknowledged.append), "celery-ops.scheduler.demo"

        def __init__(self, app, name, by):
            self.lease = Lease(by)
            self.lease.held = {1: Token(9, "two@host", {"often": (LONG_AGO.isoformat(), 7)})}

        def await_turn(self, meanwhile):
            return self.lease.held[1].runs

    def full():
        raise OSError("No space left on device")

    monkeypatch.setattr(leaving, "LeaseQueue", Turn)
    monkeypatch.setattr(leaving, "is_there", lambda app, name: True)
    monkeypatch.setenv("CELERY_OPS_PROGRAM", "demo-scheduler")
    scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    monkeypatch.setattr(scheduler, "sync", full)
    app.conf.broker_url = "amqp://"
    leaving.leave(scheduler)
    assert acknowledged == []
    assert "No space left on device" in capsys.readouterr().out


def test_a_scheduler_that_is_alone_starts_without_its_broker(app, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CELERY_OPS_PROGRAM", "demo-scheduler")
    scheduler = beat.PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    app.conf.broker_url = "amqp://127.0.0.1:1"
    leaving.leave(scheduler)
    assert "no last runs are known from a lease" in capsys.readouterr().out
