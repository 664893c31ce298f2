"""A task's time limits bound the task, not the wait for the result store.

A task that is done keeps its result while the store is away (`celery_ops.worker.results`). A soft limit that ends
meanwhile would raise there, and the task would count as failed; a hard one would kill the process, and the result with
it. So a process of a prefork pool ignores the soft limit's signal while it stores what a task has ended with. The
worker sees in /proc that it does, and lets the hard limit wait. A pool of gevent raises its one limit in the greenlet,
once: there the result is stored again.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from billiard.pool import ApplyResult, TimeoutHandler

LOOK = 1.0
"""Seconds between two looks at a process whose hard limit waits."""
GRACE = 2.0
"""Seconds that a process has, when all is stored, to tell the worker that the task is done."""
LONGEST = 300.0
"""Seconds for which a hard limit waits. A result is kept for 120 s, and then its loss for another 120."""
KEPT = "celery_ops_kept"
"""The attribute of a job that tells when its hard limit ended, and when its process was last seen storing."""


def connect() -> None:
    """Make the time limits of a worker of this process wait for the result store."""
    from celery import signals

    signals.worker_init.connect(lambda **_: _wrap(), weak=False)


@contextlib.contextmanager
def without_time_limits() -> Iterator[None]:
    """Ignore the soft limit's signal in a process of a prefork pool; elsewhere, do nothing."""
    from billiard.pool import soft_timeout_sighandler

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGUSR1) is not soft_timeout_sighandler:
        yield
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, soft_timeout_sighandler)


def is_greenlets_limit(error: BaseException) -> bool:
    """Whether this is how a pool of gevent ends a task that takes too long."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(error, gevent.Timeout)


def is_storing(pid: int | None) -> bool:
    """Whether a process ignores the soft limit's signal."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1)
    return False


def waits(job: ApplyResult) -> bool:
    """Whether the hard limit of a job, which is over, has to wait."""
    now = time.monotonic()
    kept = vars(job).setdefault(KEPT, [now, now - GRACE])
    if is_storing(job._worker_pid):
        kept[1] = now
    return not job.ready() and now - kept[1] < GRACE and now - kept[0] < LONGEST


def _wrap() -> None:
    from billiard.pool import TimeoutHandler

    if not hasattr(TimeoutHandler.on_hard_timeout, "__wrapped__"):
        TimeoutHandler.on_soft_timeout = _soft(TimeoutHandler.on_soft_timeout)
        TimeoutHandler.on_hard_timeout = _hard(TimeoutHandler.on_hard_timeout)


def _soft(on_soft_timeout: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(on_soft_timeout)
    def called(handler: TimeoutHandler, job: ApplyResult) -> None:
        if not is_storing(job._worker_pid):
            on_soft_timeout(handler, job)

    return called


def _hard(on_hard_timeout: Callable[..., Any]) -> Callable[..., Any]:
    from kombu.asynchronous import get_event_loop

    @functools.wraps(on_hard_timeout)
    def called(handler: TimeoutHandler, job: ApplyResult) -> None:
        if not waits(job):
            on_hard_timeout(handler, job)
        elif loop := get_event_loop():  # without one, the pool's thread asks each second
            loop.call_later(LOOK, handler.on_hard_timeout, job)

    return called
