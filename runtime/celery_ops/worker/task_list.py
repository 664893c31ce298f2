"""What a worker runs, holds and has scheduled, in a file beside its heartbeat: ``/run/<app>/<program>.requests``.

Celery answers such questions through the broker and its main loop: not at all while the broker is down or a solo pool
is busy. The file has no arguments and at most `MOST` tasks. `celery_ops.task_lists` reads it.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops import proc
from celery_ops.files import replace_text
from celery_ops.launch.env import RUNTIME
from celery_ops.layout import HEARTBEAT, REQUESTS
from celery_ops.worker.repeat import repeat

if TYPE_CHECKING:
    from celery.worker import WorkController
    from celery.worker.request import Request

EVERY = 5.0
"""Seconds between two lists."""
MOST = 300
"""Tasks in a list; those that run come first."""


class TaskList:
    """The file of this worker."""

    def __init__(self, path: Path, program: str, worker: "WorkController") -> None:
        self.path, self.worker, self.pid = path, worker, os.getpid()
        self.head = {
            "program": program,
            "pid": self.pid,
            "start": proc.stat(self.pid).start,
            "release": RUNTIME.parent.name,
        }
        self.seen: dict[str, float] = {}
        """When each task that waits was seen first: Celery keeps no time of its arrival."""

    def write(self) -> None:
        """Replace the file. A full or missing /run harms no task."""
        if os.getpid() != self.pid:
            return  # a pool process, forked with its parent's timers
        with contextlib.suppress(OSError, RuntimeError):  # a set changed while it was read: the next list has it
            replace_text(self.path, json.dumps({**self.head, "time": round(time.time(), 1), **self.now()}))

    def now(self) -> dict[str, Any]:
        """Return what there is at this moment."""
        from celery.worker import state

        running = [*state.active_requests]
        scheduled = [*self._scheduled()]
        others = {id(request) for request in (*running, *scheduled)}
        held = dict.fromkeys([*state.reserved_requests, *self._limited()])
        waiting = [request for request in held if id(request) not in others]
        now = time.time()
        self.seen = {request.id: self.seen.get(request.id, now) for request in waiting[:MOST]}
        lists = {
            "running": [
                {**described(one), "since": round(one.time_start or now, 1), "pid": one.worker_pid} for one in running
            ],
            "waiting": [{**described(one), "since": round(self.seen.get(one.id, now), 1)} for one in waiting[:MOST]],
            "scheduled": [{**described(one), "eta": str(one.eta)} for one in scheduled[:MOST]],
        }
        room, left_out = MOST, len(waiting[MOST:]) + len(scheduled[MOST:])
        for name, tasks in lists.items():
            left_out += len(tasks[room:])
            lists[name] = tasks[:room]
            room -= len(lists[name])
        return {**lists, "left_out": left_out}

    def _limited(self) -> Iterator["Request"]:
        """Yield what waits here for its rate limit: Celery counts it as neither reserved nor scheduled."""
        consumer = getattr(self.worker, "consumer", None)
        buckets = getattr(consumer, "task_buckets", None) or {}
        for bucket in [*buckets.values()]:
            yield from (request for request, _ in [*bucket.contents]) if bucket else ()

    def _scheduled(self) -> Iterator["Request"]:
        """Yield what this worker holds for its time. With the kit's settings, that is in the broker."""
        from celery.worker.request import Request

        with contextlib.suppress(AttributeError):  # no consumer as yet
            entries: Iterable[Any] = [*self.worker.consumer.timer.schedule.queue]
            for waiting in entries:
                arguments = getattr(getattr(waiting, "entry", None), "args", None)
                if arguments and isinstance(arguments[0], Request):
                    yield arguments[0]


def described(request: "Request") -> dict[str, Any]:
    """Return what is said of any task: no argument is."""
    return {"id": str(request.id), "name": str(request.name), "root": str(request._root_id or request.id)}


def connect() -> None:
    """Make a worker of this process write its list, if the guard named a file for its heartbeat."""
    heartbeat, program = os.environ.get("CELERY_OPS_HEARTBEAT_FILE"), os.environ.get("CELERY_OPS_PROGRAM")
    if not heartbeat or not program:
        return
    from celery import signals

    path = Path(heartbeat.removesuffix(HEARTBEAT) + REQUESTS)
    signals.worker_init.connect(lambda sender, **_: _add_step(sender, TaskList(path, program, sender)), weak=False)


def _add_step(worker: "WorkController", tasks: TaskList) -> None:
    from celery import bootsteps

    class Writer(bootsteps.StartStopStep):
        """Writes from the worker's timer; from a thread beside a solo pool, whose tasks stop the timer."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: "WorkController") -> None:
            tasks.write()
            if worker.pool_cls.__module__.endswith(".solo"):
                threading.Thread(target=_go_on, args=(tasks,), name="celery-ops-tasks", daemon=True).start()
            else:
                repeat(worker, EVERY, tasks.write)

    class Lost(bootsteps.StartStopStep):
        """Writes when the connection is gone: the timer stands still while a worker reconnects."""

        def stop(self, consumer: Any) -> None:
            tasks.write()

    worker.app.steps["worker"].add(Writer)
    worker.app.steps["consumer"].add(Lost)


def _go_on(tasks: TaskList) -> None:
    while True:
        time.sleep(EVERY)
        tasks.write()
