"""Where the kit's consumer differs from Celery's. With a broker: tests/infra/test_dead_letters.py, tests/chaos."""

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.concurrency import get_implementation
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery_ops.worker.consumer import RECONNECT, Consumer
from kombu import Connection
from kombu.exceptions import OperationalError


@pytest.fixture
def consumer():
    consumer = Consumer.__new__(Consumer)
    consumer.app = Celery("demo", broker="memory://", set_as_current=False)
    consumer.app.conf.broker_connection_retry_on_startup = True
    consumer.first_connection_attempt = True
    consumer.broker_connection_retry_attempt = 0
    return consumer


def test_the_pauses_of_a_worker_whose_broker_is_away_end_growing(consumer, monkeypatch):
    pauses, port_of_nobody = [], 1
    monkeypatch.setattr("kombu.utils.functional.sleep", pauses.append)
    consumer.app.conf.broker_connection_max_retries = 6
    with Connection(f"amqp://127.0.0.1:{port_of_nobody}//") as connection, pytest.raises(OperationalError):
        consumer.ensure_connected(connection)
    # Kombu sleeps in pieces of a second at most, and the rest of a pause.
    assert max(pauses) <= 1.0
    assert 3 * RECONNECT <= sum(pauses) <= 6 * RECONNECT


class Job:
    """As much of a job of billiard's pool as counts here."""

    def __init__(self, accepted=False, child_lives=True, handed_over=True):
        self._accepted = accepted
        self._write_to = SimpleNamespace(_is_alive=lambda: child_lives) if handed_over else None


def test_what_a_child_was_given_and_has_not_accepted_is_not_forgotten(consumer, monkeypatch):
    given, accepted = Job(), Job(accepted=True)
    jobs = {1: accepted, 2: given, 3: Job(child_lives=False), 4: Job(handed_over=False)}
    consumer.pool = SimpleNamespace(_pool=SimpleNamespace(_cache=jobs))

    def flush(_):  # the pool's flush, which Celery calls: nothing that was not accepted stays
        for number, job in list(jobs.items()):
            if not job._accepted:
                del jobs[number]

    monkeypatch.setattr(CeleryConsumer, "on_close", flush)
    consumer.on_close()
    assert jobs == {1: accepted, 2: given}


def test_a_pool_without_children_is_none_of_its_business(consumer, monkeypatch):
    monkeypatch.setattr(CeleryConsumer, "on_close", lambda _: None)
    consumer.pool = SimpleNamespace()
    consumer.on_close()


class Request:
    """As much of a request as counts here: where it is, and what became of its message."""

    def __init__(self, job=None, acknowledged=False):
        self._apply_result = job and (lambda: job)
        self.acknowledged, self.answers = acknowledged, []
        self.message = SimpleNamespace(
            reject_log_error=lambda _logger, _errors, requeue: self.answers.append(
                "requeued" if requeue else "rejected"
            )
        )


@pytest.fixture
def stop(consumer, monkeypatch):
    """Have the consumer stop; until nothing is delivered any more, some requests may still come."""
    monkeypatch.setattr(state, "active_requests", set())
    monkeypatch.setattr(state, "scheduled_requests", set(), raising=False)  # Celery before 5.7 has none
    consumer.connection_errors, consumer.task_buckets = (), {"unlimited": None}

    def stop(*requests, meanwhile=(), pool=None):
        monkeypatch.setattr(state, "reserved_requests", {*requests})
        consumer.pool = pool or SimpleNamespace(_pool=SimpleNamespace(_cache={}))

        def celerys(_):
            state.reserved_requests.clear()
            state.reserved_requests.update(meanwhile)

        monkeypatch.setattr(CeleryConsumer, "stop", celerys)
        consumer.stop()

    return stop


def test_what_comes_too_late_to_be_begun_goes_back_at_once(stop, consumer):
    waits, late, has_rate, has_time = Request(), Request(), Request(), Request()
    consumer.task_buckets["limited"] = SimpleNamespace(contents=[(has_rate, 1)])
    state.scheduled_requests.add(has_time)
    stop(waits, Request(Job(handed_over=False)), meanwhile=[late])
    for request in (waits, late, has_rate, has_time):
        assert request.answers == ["requeued"]
        assert request.acknowledged


def test_what_runs_or_is_with_a_child_is_kept(stop):
    runs, given, done = Request(Job(accepted=True)), Request(Job()), Request(acknowledged=True)
    state.active_requests.add(runs)
    stop(runs, given, done)
    assert not runs.answers + given.answers + done.answers


@pytest.mark.parametrize("name", ["threads", "solo"])
def test_a_pool_without_children_does_all_that_it_was_given(stop, name):
    given = Request()
    stop(given, pool=get_implementation(name)(limit=1))
    assert not given.answers


@pytest.mark.parametrize("where", ["active_requests", "reserved_requests"])
def test_a_task_whose_time_has_just_come_is_kept_by_threads(stop, where):
    due = Request()
    state.scheduled_requests.add(due)
    if where == "active_requests":
        state.active_requests.add(due)
    stop(
        *([due] if where == "reserved_requests" else []),
        meanwhile=[due] if where == "reserved_requests" else [],
        pool=get_implementation("threads")(limit=1),
    )
    assert not due.answers
