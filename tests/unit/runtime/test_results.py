"""The kit's Redis backend: results are kept while the store is away."""

from __future__ import annotations

import threading

import pytest
from celery_ops.worker import results


class Flaky:
    """A backend that refuses the first attempts."""

    always_retry = False

    def __init__(self, failures: int) -> None:
        self.failures, self.attempts = failures, 0

    def exception_safe_to_retry(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError)

    def store_result(self, task_id: str, result: int, state: str) -> int:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise ConnectionError("refused")
        return result


class Store(results.StoresPatiently, Flaky):
    """The same with patience."""


def in_thread(call):
    """Return what a call in another thread returns or raises, as a task of a pool of threads."""
    said = []

    def run() -> None:
        try:
            said.append(call())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return said[0]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(results, "PAUSE", 0)


def test_a_result_is_kept_until_the_store_is_back():
    store = Store(3)
    assert in_thread(lambda: store.store_result("id", 7, "SUCCESS")) == 7
    assert store.attempts == 4


def test_it_is_given_up_in_the_end_and_at_once_where_the_application_has_retries_of_its_own(monkeypatch):
    own = Store(3)
    own.always_retry = True
    assert isinstance(in_thread(lambda: own.store_result("id", 7, "SUCCESS")), ConnectionError)
    assert own.attempts == 1
    monkeypatch.setattr(results, "PATIENCE", 0)
    assert isinstance(in_thread(lambda: Store(3).store_result("id", 7, "SUCCESS")), ConnectionError)


def test_the_main_loop_of_a_worker_or_a_page_does_not_wait():
    store = Store(3)
    with pytest.raises(ConnectionError):
        store.store_result("id", 7, "SUCCESS")
    assert store.attempts == 1
