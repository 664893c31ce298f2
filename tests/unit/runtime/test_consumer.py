"""Where the kit's consumer differs from Celery's. With a broker: tests/infra/test_dead_letters.py, tests/chaos."""

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker.consumer import Consumer as CeleryConsumer
from celery_ops.consumer import RECONNECT, Consumer
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
