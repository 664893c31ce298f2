"""Acknowledgements in batches: of which tags the broker is told, and when. With RabbitMQ: test_short_tasks.py."""

from types import SimpleNamespace

import pytest
from celery_ops.worker.acks import HOLD, Acknowledgements


@pytest.fixture
def made():
    said, due = [], []
    batches = Acknowledgements(
        lambda tag, multiple: said.append((tag, multiple)), 4, lambda seconds, call: due.append((seconds, call))
    )
    return SimpleNamespace(batches=batches, said=said, due=due)


def test_one_acknowledgement_is_for_all_that_are_done(made):
    for tag in (1, 2, 4, 3):
        made.batches.add(tag)
    assert made.said == [(4, True)]


def test_none_is_for_a_task_that_still_runs(made):
    for tag in (1, 3, 4, 5):  # 2 runs
        made.batches.add(tag)
    assert made.said == [(1, True), (3, False), (4, False), (5, False)]
    for tag in (6, 2, 7, 8):
        made.batches.add(tag)
    assert made.said[4:] == [(8, True)]


def test_what_waits_for_others_waits_for_a_moment_only(made):
    made.batches.add(1)
    made.batches.add(2)
    assert (made.said, len(made.due), made.due[0][0]) == ([], 1, HOLD)
    made.due[0][1]()
    assert made.said == [(2, True)]
    made.batches.add(3)
    assert len(made.due) == 2


def test_a_rejected_message_stands_in_nobodys_way(made):
    made.batches.answered(1)
    for tag in (2, 3, 4, 5):
        made.batches.add(tag)
    assert made.said == [(5, True)]


def test_a_task_that_must_not_run_again_is_acknowledged_at_once(made):
    early = SimpleNamespace(task=SimpleNamespace(acks_late=False), message=SimpleNamespace(delivery_tag=1))
    made.batches.receive(early)
    made.batches.add(1)
    assert made.said == [(1, False)] and not made.batches.early


def test_a_worker_that_stops_holds_nothing(made):
    made.batches.add(1)
    made.batches.end()
    made.batches.add(2)
    assert made.said == [(1, True), (2, False)]


def test_a_long_task_beside_many_short_ones_takes_no_memory(made):
    for tag in range(2, 10_000):  # 1 runs
        made.batches.add(tag)
    assert made.batches.running == {1} and len(made.batches.held) < 4
