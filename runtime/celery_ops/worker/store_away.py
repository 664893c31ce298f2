"""A result store that is away ends no worker.

What expired, was revoked or was lost with its process has a result that the worker's main loop stores. Celery (5.3 to
5.7) lets the store's error through there: the worker ends, is started again, gets the same message, and ends again.
Here the result is lost, which the log says, and the worker goes on. The main loop waits a second for the store.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from billiard.process import current_process

if TYPE_CHECKING:
    from celery.backends.base import Backend

METHODS = ("store_result", "mark_as_revoked", "mark_as_failure", "mark_as_retry")
"""What the main loop calls of a backend. The latter three also tell the chord, which is in the store as well."""


_is_worker = threading.Event()
"""Set in the process of a worker."""


def connect() -> None:
    """Make the main loop of a worker of this process go on without its result store."""
    from celery import signals

    @signals.worker_init.connect(weak=False)
    def in_worker(**_: Any) -> None:
        _is_worker.set()
        _wrap()


def runs_tasks() -> bool:
    """Whether this is where a task has run: the main loop of a worker, and a web page, must not wait.

    The threads of a web server are no pool's.
    """
    if current_process().name != "MainProcess":
        return True
    return _is_worker.is_set() and threading.current_thread() is not threading.main_thread()


def _wrap() -> None:
    from celery.backends.base import Backend

    for name in METHODS:
        method = getattr(Backend, name)
        if not hasattr(method, "__wrapped__"):
            setattr(Backend, name, going_on(method))


def going_on(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a backend's method that raises nothing in a worker's main loop; where a task runs, it does as it did."""
    from celery._state import get_current_task
    from celery.utils.log import get_logger

    @functools.wraps(method)
    def called(backend: Backend, task_id: str, *arguments: Any, **options: Any) -> Any:
        if runs_tasks() or get_current_task() is not None:  # a solo pool's runs in the main loop
            return method(backend, task_id, *arguments, **options)
        try:
            return method(getattr(backend, "hurried", backend), task_id, *arguments, **options)
        except Exception as error:
            # Its text may hold a part of the result.
            get_logger(__name__).error("The state of task %s can't be kept: %s", task_id, type(error).__name__)
            return None

    return called
