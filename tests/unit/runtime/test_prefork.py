"""What a worker has loaded is left out of the garbage collections before each fork."""

import gc

import pytest
from celery import Celery
from celery.signals import worker_before_create_process, worker_init
from celery_ops.worker import prefork


@pytest.fixture
def connected(monkeypatch):
    for signal in (worker_before_create_process, worker_init):
        monkeypatch.setattr(signal, "receivers", [])
        monkeypatch.setattr(signal, "sender_receivers_cache", {}, raising=False)
    prefork.connect()
    yield
    gc.unfreeze()


def test_it_is_frozen_before_the_first_child(connected):
    worker_before_create_process.send(sender=None)
    assert gc.get_freeze_count() > 1000


def test_what_comes_later_stays_collectable(connected):
    worker_before_create_process.send(sender=None)
    frozen = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    worker_before_create_process.send(sender=None)
    assert gc.get_freeze_count() <= frozen
    assert len(kept) == 1000


@pytest.mark.parametrize(
    ("variable", "own", "expected"), [("200", None, 200), ("200", 300, 300), ("", None, 4), (None, None, 4)]
)
def test_a_child_may_take_as_long_to_start_as_the_worker(variable, own, expected, connected, monkeypatch):
    monkeypatch.delenv("CELERY_OPS_START_TIMEOUT", raising=False)
    if variable is not None:
        monkeypatch.setenv("CELERY_OPS_START_TIMEOUT", variable)
    app = Celery("shop", set_as_current=False)
    if own:
        app.conf.worker_proc_alive_timeout = own
    worker_init.send(sender=type("Worker", (), {"app": app}))
    assert app.conf.worker_proc_alive_timeout == expected
