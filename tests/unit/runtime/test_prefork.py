"""What a worker has loaded is left out of the garbage collections before each fork."""

import gc

import pytest
from celery.signals import worker_before_create_process
from celery_ops import prefork


@pytest.fixture
def connected(monkeypatch):
    monkeypatch.setattr(worker_before_create_process, "receivers", [])
    monkeypatch.setattr(worker_before_create_process, "sender_receivers_cache", {}, raising=False)
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
