"""Celery's Redis backends, with what they lack.

A task whose result can't be stored is done, and its result is lost: Celery gives up at once where the connection is
refused. A worker's pool tries again, so that a Redis that is restarted, or replaced by a replica, loses none.

They are told to speak protocol 2 where the client can be told. With protocol 3, which redis-py 8 speaks by itself, the
client formats each message of a subscription for its log, wanted or not: a result of 18 MB takes 0.3 s of CPU instead
of 0.05.
"""

from __future__ import annotations

import os
import time
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from celery.backends.redis import RedisBackend as CelerysRedisBackend
from celery.backends.redis import SentinelBackend as CelerysSentinelBackend
from celery.states import READY_STATES, RETRY
from celery.utils.log import get_logger
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_ops.layout import TLS_CLIENT
from celery_ops.worker import versions
from celery_ops.worker.large_results import SentOnce
from celery_ops.worker.store_away import runs_tasks
from celery_ops.worker.storing import is_greenlets_limit, without_time_limits

PATIENCE, PAUSE = 120.0, 1.0
"""Seconds for which a result is kept while the store is away, and between two attempts."""
ANSWER = 1.0
"""Seconds that the store has for what is not worth waiting for."""
AWAY = (OSError, exceptions.ConnectionError, exceptions.TimeoutError)
"""The client's own errors. Celery knows none of them where kombu's Redis transport lacks a package (`packaging`)."""
NO_PRIMARY = ("NOREPLICAS", "READONLY")
"""What a Redis says that is no primary any more, or has no replica yet."""
SENTINEL_TIMEOUT = 2.0
"""Seconds that a Sentinel has to answer, before the next one is asked."""


class StoresPatiently:
    """Tries again to store a result while Redis is away, in the process or thread that ran the task."""

    hurries = False
    """Whether it gives up at once."""

    @cached_property
    def hurried(self) -> StoresPatiently:
        """This backend for where nothing must wait: for the main loop, and for the tick, which comes again soon."""
        if self.hurries:
            return self
        # Not copy.copy, for which Celery makes another one of the current app.
        hurried = object.__new__(type(self))
        vars(hurried).update({name: value for name, value in vars(self).items() if name != "client"})
        times = {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER, "retry_on_timeout": False}
        hurried.connparams = {**self.connparams, **times}
        hurried.hurries, hurried.always_retry = True, False
        return hurried

    def store_result(self, task_id: str, result: Any, state: str, *arguments: Any, **options: Any) -> Any:
        """Store a result, within `PATIENCE` seconds. An application that sets Celery's own retries has those."""
        if state != RETRY and state not in READY_STATES:
            return self._keep_trying(task_id, result, state, *arguments, **options)
        with without_time_limits():
            try:
                return self._keep_trying(task_id, result, state, *arguments, **options)
            except BaseException as error:
                if not is_greenlets_limit(error):
                    raise
            return self._keep_trying(task_id, result, state, *arguments, **options)

    def _keep_trying(self, *arguments: Any, **options: Any) -> Any:
        deadline = time.monotonic() + (0.0 if self.hurries else PATIENCE)
        while True:
            try:
                return super().store_result(*arguments, **options)
            except Exception as error:
                gives_up = self.always_retry or time.monotonic() >= deadline or not runs_tasks()
                is_away = isinstance(error, AWAY) or self.exception_safe_to_retry(error)
                if gives_up or not (is_away or any(word in str(error) for word in NO_PRIMARY)):
                    raise
                # Its text may hold a part of the result.
                why = type(error).__name__
                get_logger(__name__).warning("The result store is away (%s): the result is kept and sent again", why)
            time.sleep(PAUSE)


class SpeaksProtocol2:
    """Speaks the older protocol where the URL names none."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if versions.redis_takes_protocol():
            self.connparams.setdefault("protocol", 2)


class RedisBackend(StoresPatiently, SentOnce, SpeaksProtocol2, CelerysRedisBackend):
    """The backend of ``redis://`` and ``rediss://``."""


class SentinelBackend(StoresPatiently, SentOnce, SpeaksProtocol2, CelerysSentinelBackend):
    """The backend of ``sentinel://``: the kit's primary, its logins at Sentinel and TLS need no setting.

    Before Celery 5.6 the user in the URL is dropped, and no version gives a Sentinel that hangs a time limit. What the
    application sets itself stays.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # redis-py's own retries go to the address of before; a connection that is taken anew asks Sentinel.
        self.connparams |= {"retry": Retry(NoBackoff(), 0), "retry_on_timeout": False}

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        if (options := tls_options()) and "connection_class" not in defaults:
            defaults = {**defaults, **options, "connection_class": self.connection_class_ssl}
        params = super()._params_from_url(url, defaults)
        if user := params["hosts"][0].get("username"):
            params["username"] = user
        return params

    @property
    def _transport_options(self) -> dict[str, Any]:
        given = super()._transport_options
        if not (primary := os.environ.get("CELERY_OPS_SENTINEL")):
            return given
        login = urlsplit((self.url or "").split(";")[0])
        tls = {"ssl": True, **tls_options()} if tls_options() else {}
        sentinel = {
            "username": unquote(login.username or "") or None,
            "password": unquote(login.password or "") or None,
            "socket_timeout": SENTINEL_TIMEOUT,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            **tls,
        }
        return {"master_name": primary, "sentinel_kwargs": sentinel, **given}


def tls_options() -> dict[str, Any]:
    """Return what a connection to the kit's Redis of several hosts needs for TLS; nothing without.

    Before redis-py 6 the client does not verify the name by itself.
    """
    ca = os.environ.get("CELERY_OPS_TLS_CA") if os.environ.get("CELERY_OPS_SENTINEL") else None
    if not ca:
        return {}
    shown = {"ssl_certfile": client} if (client := os.environ.get(TLS_CLIENT)) else {}
    return {"ssl_cert_reqs": "required", "ssl_ca_certs": ca, "ssl_check_hostname": True, **shown}
