"""An application's settings: set one where it is looked up, read one that can be read once only."""

from collections.abc import Iterator
from typing import Any


def put(conf: Any, name: str, value: Any) -> None:
    """Set a setting under the name that is looked up first.

    With a namespace, Celery before 5.7 finds the application's own ``CELERY_BEAT_SCHEDULE`` before a ``beat_schedule``.
    """
    conf[conf._to_keys(name)[0]] = value


def declared_queues(conf: Any) -> Any:
    """Return ``task_queues``, a list or a mapping; an iterator, such as ``map(Queue, names)``, becomes a list there."""
    queues = conf.task_queues or ()
    if isinstance(queues, Iterator):
        queues = list(queues)
        put(conf, "task_queues", queues)
    return queues
