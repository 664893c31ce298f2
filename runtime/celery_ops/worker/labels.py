"""What a queue is called in pause, heartbeats and metrics: a `Broadcast` by its alias, as `-Q` takes it.

The queue of a `Broadcast` has another name in each process: an operator can't know it, and metrics would have a new
label with each start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Queue


def label(queue: Queue) -> str:
    """Return what a queue is called."""
    return str(queue.alias or queue.name)


def consumed(app: Celery) -> dict[str, Queue]:
    """Return by label the queues that a worker of this process is told to consume from now."""
    return {label(queue): queue for queue in app.amqp.queues.consume_from.values()}
