"""Workers refuse a second message of one scheduled run.

A leader of several schedulers (`celery_ops.lease`) gives a run the same id as its successor, which sends it again where
it can't know whether it was sent. Each message has a number of its own, so that one that is delivered again, because
its worker has died, is run. Which number came first for an id is kept in the result store, where that is a Redis, for
all workers; without one, each worker program knows what it has received itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker.request import Request

HEADER = "celery_ops_tick"
"""The header of a message that a leader sends: who sent it, another number for each message, and which run it is."""
KEY = "celery-ops-tick-"
KEEP = 86400
"""Seconds that the store keeps an id."""
MOST = 10_000
"""How many ids a worker program keeps itself."""
ANSWER = 1.0
"""Seconds that the store has for an answer. Without one the task is run: late is better than never."""


class Known:
    """Which message was first for an id."""

    def __init__(self, store: Callable[[str, str], str] | None = None) -> None:
        self.store, self.own = store, OrderedDict()

    def first(self, task_id: str, number: str) -> str:
        """Return the number of the message that came first, this one's if none did."""
        if task_id not in self.own:
            self.own[task_id] = self.store(task_id, number) if self.store else number
            while len(self.own) > MOST:
                self.own.popitem(last=False)
        return self.own[task_id]


class Store:
    """The result store, where it is a Redis, asked over a connection that waits a second for an answer."""

    def __init__(self, app: Celery) -> None:
        self.app, self.client, self.failed = app, None, False

    def __call__(self, task_id: str, number: str) -> str:
        """Return the number of the message that came first for an id, as far as the store tells."""
        from celery.utils.log import get_logger

        backend = self.app.backend
        if not hasattr(backend, "_create_client"):
            return number
        try:
            if self.client is None:
                times = {"socket_timeout": ANSWER, "socket_connect_timeout": ANSWER, "retry_on_timeout": False}
                self.client = backend._create_client(**{**backend.connparams, **times})
            key = backend.get_key_for_task(f"{KEY}{task_id}")
            if self.client.set(key, number, nx=True, ex=KEEP):
                return number
            first = self.client.get(key)
        except Exception as error:
            if not self.failed:
                get_logger(__name__).warning("Which scheduled runs came before can't be asked: %s", error)
            self.failed, self.client = True, None
            return number
        self.failed = False
        return first.decode() if isinstance(first, bytes) else str(first or number)


def connect() -> None:
    """Make a worker of this process refuse what has come before."""
    from celery import signals

    known: dict[int, Known] = {}

    @signals.task_received.connect(weak=False)
    def received(request: Request, **_: Any) -> None:
        number = (request.request_dict or {}).get(HEADER)
        if number is None:
            return
        app = request.app
        here = known.setdefault(id(app), Known(Store(app)))
        if here.first(request.id, number) != number:
            refuse(request)


def refuse(request: Request) -> None:
    """Acknowledge the message in the place of running its task."""
    from celery.exceptions import TaskRevokedError
    from celery.utils.log import get_logger
    from celery.worker.state import task_ready

    def execute_using_pool(*_: Any, **__: Any) -> None:
        get_logger(__name__).warning("Refused %s[%s]: this run was received before", request.name, request.id)
        request.acknowledge()
        task_ready(request)
        raise TaskRevokedError(request.id)

    request.execute_using_pool = execute_using_pool
