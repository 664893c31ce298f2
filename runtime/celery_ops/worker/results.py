"""Celery's Redis backend, with what it lacks.

A task whose result can't be stored is done, and its result is lost: Celery gives up at once where the connection is
refused. A worker's pool tries again, so that a Redis that is restarted, or replaced by a replica, loses none.

It is told to speak protocol 2 where the client can be told. With protocol 3, which redis-py 8 speaks by itself, the
client formats each message of a subscription for its log, wanted or not: a result of 18 MB takes 0.3 s of CPU instead
of 0.05.
"""

import threading
import time
from typing import Any

from billiard.process import current_process
from celery.backends.redis import RedisBackend as CelerysRedisBackend
from celery.utils.log import get_logger

from celery_ops.worker import versions

PATIENCE, PAUSE = 120.0, 1.0
"""Seconds for which a result is kept while the store is away, and between two attempts."""


class StoresPatiently:
    """Tries again to store a result while Redis is away, in the process or thread that ran the task."""

    def store_result(self, *arguments: Any, **options: Any) -> Any:
        """Store a result, within `PATIENCE` seconds. An application that sets Celery's own retries has those."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return super().store_result(*arguments, **options)
            except Exception as error:
                gives_up = self.always_retry or time.monotonic() >= deadline or not runs_tasks()
                if gives_up or not self.exception_safe_to_retry(error):
                    raise
                get_logger(__name__).warning("The result store is away (%s): the result is kept and sent again", error)
            time.sleep(PAUSE)


def runs_tasks() -> bool:
    """Whether this is where a task has run: the main loop of a worker, and a web page, must not wait."""
    return current_process().name != "MainProcess" or threading.current_thread() is not threading.main_thread()


class RedisBackend(StoresPatiently, CelerysRedisBackend):
    """The backend of ``redis://`` and ``rediss://``. A protocol in the URL stays."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if versions.redis_takes_protocol():
            self.connparams.setdefault("protocol", 2)
