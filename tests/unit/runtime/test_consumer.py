"""Where the kit's consumer differs from Celery's. With a broker: tests/infra/test_dead_letters.py, tests/chaos.

Jobs and requests are billiard's and Celery's own, as installed, and their messages a real transport's.
"""

import os
import signal
import threading
import time
import weakref
from types import SimpleNamespace

import billiard
import pytest
from billiard.pool import ApplyResult
from celery import Celery
from celery.concurrency import get_implementation
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request
from celery_ops.worker.consumer import RECONNECT, Consumer
from kombu import Connection
from kombu.asynchronous import Hub, set_event_loop
from kombu.exceptions import OperationalError
from kombu.utils.limits import TokenBucket
from support.wait import wait_until


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


@pytest.fixture(scope="module")
def children():
    """A process that lives, by True, and one that has ended, by False."""
    lives, ended = (billiard.Process(target=time.sleep, args=(seconds,), daemon=True) for seconds in (600, 0))
    lives.start()
    ended.start()
    ended.join()
    yield {True: lives, False: ended}
    lives.terminate()
    lives.join()


@pytest.fixture
def job(children):
    """Make a job of billiard's pool: given to a child or not yet, accepted by it or not yet."""

    def make(accepted=False, child_lives=True, handed_over=True):
        made = ApplyResult({}, None)
        if handed_over:
            made._write_to = children[child_lives]
        if accepted:
            made._ack(None, time.time(), children[child_lives].pid, None)
        return made

    return make


def test_what_a_child_was_given_and_has_not_accepted_is_not_forgotten(consumer, job, monkeypatch):
    given, accepted = job(), job(accepted=True)
    jobs = {1: accepted, 2: given, 3: job(child_lives=False), 4: job(handed_over=False)}
    consumer.pool = SimpleNamespace(_pool=SimpleNamespace(_cache=jobs))

    def flush(_):  # the pool's flush, which Celery calls: nothing that was not accepted stays
        for number, one in list(jobs.items()):
            if not one._accepted:
                del jobs[number]

    monkeypatch.setattr(CeleryConsumer, "on_close", flush)
    consumer.on_close()
    assert jobs == {1: accepted, 2: given}


@pytest.fixture
def pool(consumer):
    """A prefork pool of one child, and the steps of the event loop that writes to it, as in a worker."""
    hub = Hub()
    set_event_loop(hub)
    consumer.pool = pool = get_implementation("prefork")(
        1, threads=False, app=consumer.app, initargs=(consumer.app, "demo@host")
    )
    pool.start()
    pool.register_with_event_loop(hub)
    [child] = pool._pool._pool
    yield pool, child, hub.create_loop()
    set_event_loop(None)
    child.terminate()


def test_a_large_message_that_is_half_written_at_a_stop_is_written_to_its_end(consumer, pool, monkeypatch):
    (pool, child, loop), done = pool, []
    pool.apply_async(len, (b"",), callback=done.append)
    wait_until(lambda: next(loop) or done, 10, "that the child is up")
    os.kill(child.pid, signal.SIGSTOP)
    job = pool.apply_async(len, (bytes(2**22),), callback=done.append)
    wait_until(lambda: next(loop) or job._write_to, 10, "that the child is written to")
    os.kill(child.pid, signal.SIGCONT)
    pool._pool.close()
    monkeypatch.setattr(CeleryConsumer, "on_close", lambda _: pool._pool.flush())
    consumer.on_close()
    stop = threading.Thread(target=pool.stop, daemon=True)
    stop.start()
    stop.join(20)
    assert not stop.is_alive(), "the pool waits for its child, which waits for the rest"
    assert done == [0, 2**22]


def test_a_pool_without_children_is_none_of_its_business(consumer, monkeypatch):
    monkeypatch.setattr(CeleryConsumer, "on_close", lambda _: None)
    consumer.pool = SimpleNamespace()
    consumer.on_close()


@pytest.fixture
def channel(consumer):
    with consumer.app.connection_for_write() as connection:
        yield connection.channel()


@pytest.fixture
def request_of(consumer, channel):
    """Make a request of a message that was delivered; with `job`, one that was handed to the pool."""
    app, jobs = consumer.app, []

    @app.task(name="demo.nothing", shared=False)
    def nothing():
        """Do nothing."""

    def make(job=None, acknowledged=False):
        app.send_task("demo.nothing", connection=channel.connection.client)
        message = channel.basic_get("celery")
        request = Request(message, app=app, task=nothing, on_ack=message.ack_log_error)
        if job:
            jobs.append(job)
            request._apply_result = weakref.ref(job)
        if acknowledged:
            request.acknowledge()
        return request

    return make


@pytest.fixture
def requeued(channel):
    """Return the tasks that another worker would get now."""

    def ids():
        return {message.headers["id"] for message in iter(lambda: channel.basic_get("celery"), None)}

    return ids


@pytest.fixture
def stop(consumer, monkeypatch):
    """Stop the consumer; until nothing is delivered any more, some requests may still come."""
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


def test_what_comes_too_late_to_be_begun_goes_back_at_once(stop, consumer, request_of, requeued, job):
    waits, late, has_rate, has_time = (request_of() for _ in range(4))
    given = request_of(job(handed_over=False))
    bucket = TokenBucket(1)
    bucket.add((has_rate, 1))
    consumer.task_buckets["limited"] = bucket
    state.scheduled_requests.add(has_time)
    stop(waits, given, meanwhile=[late])
    late_ones = (waits, given, late, has_rate, has_time)
    assert requeued() == {request.id for request in late_ones}
    assert all(request.acknowledged for request in late_ones)


def test_what_runs_or_is_with_a_child_is_kept(stop, request_of, requeued, job):
    runs, given, done = request_of(job(accepted=True)), request_of(job()), request_of(acknowledged=True)
    state.active_requests.add(runs)
    stop(runs, given, done)
    assert requeued() == set()
    assert [request.acknowledged for request in (runs, given, done)] == [False, False, True]


@pytest.mark.parametrize("name", ["threads", "solo"])
def test_a_pool_without_children_does_all_that_it_was_given(stop, name, request_of, requeued):
    given = request_of()
    stop(given, pool=get_implementation(name)(limit=1))
    assert requeued() == set()


@pytest.mark.parametrize("where", ["active_requests", "reserved_requests"])
def test_a_task_whose_time_has_just_come_is_kept_by_threads(stop, where, request_of, requeued):
    due = request_of()
    state.scheduled_requests.add(due)
    if where == "active_requests":
        state.active_requests.add(due)
    stop(
        *([due] if where == "reserved_requests" else []),
        meanwhile=[due] if where == "reserved_requests" else [],
        pool=get_implementation("threads")(limit=1),
    )
    assert requeued() == set()
