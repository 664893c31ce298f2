"""Celery's Redis backend, told to speak protocol 2 where the client can be told.

With protocol 3, which redis-py 8 speaks by itself, the client formats each message of a subscription for its log,
wanted or not: a result of 18 MB takes 0.3 s of CPU instead of 0.05.
"""

from typing import Any

from celery.backends.redis import RedisBackend as CelerysRedisBackend

from celery_ops.worker import versions


class RedisBackend(CelerysRedisBackend):
    """The backend of ``redis://`` and ``rediss://``. A protocol in the URL stays."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if versions.redis_takes_protocol():
            self.connparams.setdefault("protocol", 2)
