"""Counts what a worker does, in its main process: tasks by outcome, how long they ran, and how long they waited.

One hook for every pool: where the worker gives a task to its pool, and is told that it began and how it ended. Nothing
has to be sent as an event, and nothing runs in the pool's processes. The counts are written to
``/run/<app>/<program>.<pid>-<start>.tasks`` every few seconds; the watchdog adds up the files of all generations
(`celery_ops.watchdog.totals`).
"""

import contextlib
import json
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops.files import replace_text
from celery_ops.layout import COUNTERS
from celery_ops.worker import labels
from celery_ops.worker.repeat import repeat

if TYPE_CHECKING:
    from celery.worker import WorkController

PUBLISHED = "celery_ops_published"
"""The header that says when a message was published, in seconds since the epoch."""
EVERY = 5.0
"""Seconds between two times that the counts are written."""
LATE = 2 * EVERY
TASKS, EXCEPTIONS = 100, 20
"""How many names of tasks, and of exceptions of one task, are told apart; what is beyond counts as OTHER."""
OTHER = "other"
RUNTIME = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
WAIT = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
"""The upper bounds of the histograms' buckets, in seconds."""
TICK = "celery_ops.tick"


def stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Write into a message when it is published. A retry has the header of the message before: it is replaced."""
    if headers is not None:
        headers[PUBLISHED] = round(time.time(), 3)


def published(headers: Mapping[str, Any]) -> float | None:
    """Return when a message was published, as its sender or else the broker says; None where neither does."""
    try:
        if PUBLISHED in headers:
            return float(headers[PUBLISHED])
        if "timestamp_in_ms" in headers:
            return float(headers["timestamp_in_ms"]) / 1000
        sent = (headers.get("properties") or {}).get("timestamp")
        if isinstance(sent, datetime):
            return (sent if sent.tzinfo else sent.replace(tzinfo=UTC)).timestamp()
        return float(sent) if sent is not None else None
    except (TypeError, ValueError):
        return None


def due(headers: Mapping[str, Any]) -> float:
    """Return when a task may begin at the earliest, where it has an ETA; 0 where it has none."""
    if not (eta := headers.get("eta")):
        return 0.0
    try:
        when = datetime.fromisoformat(eta)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError):
        return 0.0


class Histogram:
    """How many values lie below each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def about(self) -> dict[str, Any]:
        """Return the counts of the buckets, each without those below, and the sum of all values."""
        return {"counts": list(self.counts), "sum": round(self.sum, 6)}


class OfTask:
    """The counts of one task."""

    def __init__(self) -> None:
        self.started = self.succeeded = self.retried = self.dropped = 0
        self.failed: dict[str, int] = {}
        self.runtime = Histogram(RUNTIME)

    def fail(self, exception: str) -> None:
        """Count a failure by the name of its exception."""
        name = exception if exception in self.failed or len(self.failed) < EXCEPTIONS else OTHER
        self.failed[name] = self.failed.get(name, 0) + 1

    def about(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            **{"started": self.started, "succeeded": self.succeeded, "retried": self.retried, "dropped": self.dropped},
            **{"failed": dict(self.failed), "runtime": self.runtime.about()},
        }


class OfQueue:
    """The counts of what came from one queue."""

    def __init__(self) -> None:
        self.delivered = self.finished = 0
        self.published = 0.0
        """When the newest of the messages that were delivered was published."""
        self.wait = Histogram(WAIT)

    def about(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            **{"delivered": self.delivered, "finished": self.finished, "published": self.published},
            **{"wait": self.wait.about()},
        }


class Counters:
    """The counts of one worker, in memory and in its file. The threads of a pool may count at the same time."""

    def __init__(self, path: Path) -> None:
        self.path, self.pid, self.began = path, os.getpid(), time.time()
        # Celery's handler of SIGQUIT ends tasks, and so counts, whatever this thread is at.
        self.lock, self.file_lock = threading.RLock(), threading.RLock()
        self.tasks: dict[str, OfTask] = {}
        self.queues: dict[str, OfQueue] = {}
        self.refused: dict[str, int] = {}
        self.tick = 0.0
        self.changed, self.written = True, 0.0
        self.epoch = 0.0
        """When the monotonic clock was at 0. Read every few seconds, as somebody may set the wall clock."""
        self.read_clock()

    def task(self, name: str) -> OfTask:
        """Return the counts of a task, those of OTHER where there are too many names."""
        if found := self.tasks.get(name):
            return found
        return self.tasks.setdefault(name if len(self.tasks) < TASKS else OTHER, OfTask())

    def expect(self, names: Iterable[str]) -> None:
        """Begin to count these at zero, if they are not too many: the first failure of a task is an increase, too."""
        own = [name for name in names if not name.startswith(("celery.", "celery_ops."))]
        for name in own if len(own) <= TASKS // 2 else ():
            self.task(name)

    def refuse(self, reason: str) -> None:
        """Count a message that will not be run."""
        with self.lock:
            self.refused[reason] = self.refused.get(reason, 0) + 1
            self.changed = True

    def delivered(self, name: str, headers: Mapping[str, Any], queue: str) -> "Run":
        """Count that a message was given to the pool; return what counts the rest of its way."""
        # This runs for each message: what is usual costs no call.
        sent, of = headers.get(PUBLISHED), None
        if type(sent) is not float:
            sent = published(headers)
        ready = max(sent, due(headers)) if sent is not None and headers.get("eta") else sent
        with self.lock:
            if queue:
                of = self.queues.get(queue) or self.queues.setdefault(queue, OfQueue())
                of.delivered += 1
                if sent and sent > of.published:
                    of.published = sent
                self.changed = True
            return Run(self, name, self.tasks.get(name) or self.task(name), of, ready)

    def about(self) -> dict[str, Any]:
        """Return all counts."""
        now = round(time.time(), 3)
        with self.lock:
            for queue in self.queues.values():
                queue.published = min(queue.published, now)  # by a sender whose clock is ahead
            return {
                "pid": self.pid,
                "began": round(self.began, 3),
                "time": now,
                "tick": self.tick,
                "tasks": {name: task.about() for name, task in self.tasks.items()},
                "queues": {name: queue.about() for name, queue in self.queues.items()},
                "refused": dict(self.refused),
            }

    def read_clock(self) -> None:
        """Read by how much the wall clock is ahead of the monotonic one."""
        self.epoch = time.time() - time.monotonic()

    def write(self) -> None:
        """Replace the file in one step, if something changed; a full or missing /run must harm no task."""
        self.read_clock()
        if not self.changed or os.getpid() != self.pid:
            return  # or a pool process, forked with its parent's timers
        with self.file_lock, contextlib.suppress(OSError):
            self.changed, self.written = False, time.monotonic()
            replace_text(self.path, json.dumps(self.about()) + "\n")


class Run:
    """One task on its way through the pool, which calls this in the place of the worker's four callbacks.

    Methods, not closures: each object that a task costs brings the next garbage collection of a big process nearer.
    """

    __slots__ = ("accepted", "counters", "done", "failed", "late", "name", "over", "queue", "ready", "task")

    def __init__(self, counters: Counters, name: str, task: OfTask, queue: OfQueue | None, ready: float | None) -> None:
        self.counters, self.name, self.task, self.queue = counters, name, task, queue
        self.ready = ready
        """When it could have begun, were there no wait: when it was published, or the time of its ETA."""
        self.over = False

    def accept(self, pid: int, at: float) -> Any:
        """Count that it began, and say so."""
        self.began(at)
        return self.accepted(pid, at)

    def finish(self, answer: Any) -> Any:
        """Count how it ended, and say so."""
        # A pool that runs tasks in its own process calls this with an ExceptionInfo, where one was killed.
        if isinstance(answer, tuple) and len(answer) == 3:
            self.ended(_exception(answer[1]) if answer[0] else None, answer[2])
        else:
            self.ended(_exception(answer), None)
        return self.done(answer)

    def fail(self, info: Any, *arguments: Any, **more: Any) -> Any:
        """Count that it was lost with its process, and say so."""
        self.ended(_exception(info), None)
        return self.failed(info, *arguments, **more)

    def expire(self, soft: bool, timeout: float) -> Any:  # billiard passes them by name
        """Count that it hit its hard limit, and say so."""
        if not soft:
            from celery.exceptions import TimeLimitExceeded

            self.ended(TimeLimitExceeded(timeout), None)
        return self.late(soft, timeout)

    def began(self, at: float) -> None:
        """Count that it began, `at` in monotonic seconds."""
        counters = self.counters
        with counters.lock:
            self.task.started += 1
            counters.changed = True
            if self.queue and self.ready is not None:
                waited = counters.epoch + at - self.ready
                self.queue.wait.add(waited if waited > 0 else 0.0)
            if self.name == TICK:
                counters.tick = round(time.time(), 3)

    def ended(self, error: BaseException | None, runtime: float | None) -> None:
        """Count how it ended, with this exception or well; once, as a pool may tell of a time limit twice."""
        counters, outcome = self.counters, "succeeded" if error is None else _outcome(error)
        if outcome == "rejected":
            counters.refuse(outcome)
            outcome = "dropped"
        with counters.lock:
            if self.over:
                return
            self.over = True
            task = self.task
            if error is None:
                task.succeeded += 1
            elif outcome == "failed":
                task.fail(_name(error))
            else:
                setattr(task, outcome, getattr(task, outcome) + 1)
            if runtime is not None:
                task.runtime.add(runtime)
            if self.queue:
                self.queue.finished += 1
            counters.changed = True
        if time.monotonic() - counters.written > LATE:
            counters.write()  # as the timer should have: a worker that drains has none


def _outcome(error: BaseException) -> str:
    from celery.exceptions import Ignore, Reject, Retry

    if isinstance(error, Reject):
        return "dropped" if error.requeue else "rejected"
    return "retried" if isinstance(error, Retry) else "dropped" if isinstance(error, Ignore) else "failed"


def _name(error: BaseException) -> str:
    """Return the name of an exception, also of one that could not travel from the pool's process."""
    return str(getattr(error, "exc_cls_name", "") or type(error).__name__)[:80]


def _exception(info: Any) -> BaseException | None:
    """Return the exception that an ExceptionInfo is about."""
    error = getattr(info, "exception", info)
    return getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error


def counting(counters: Counters, apply_async: Callable[..., Any], queue_of: Callable[[Any], str]) -> Callable[..., Any]:
    """Return the pool's `apply_async`, which counts. What it is not sure of it leaves as it is."""
    from celery_ops.worker.canary import TASK as PROBE

    def apply(target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        try:
            name, headers = args[0], args[2]
            accepted, done = options["accept_callback"], options["callback"]
            failed, late = options["error_callback"], options["timeout_callback"]
            if name != PROBE and accepted and failed and late and isinstance(headers, dict):
                run = counters.delivered(name, headers, queue_of(done.__self__))
                run.accepted, run.done, run.failed, run.late = accepted, done, failed, late
                options["accept_callback"], options["callback"] = run.accept, run.finish
                options["error_callback"], options["timeout_callback"] = run.fail, run.expire
        except (TypeError, LookupError, AttributeError):
            pass  # not a task's call as this Celery makes it
        return apply_async(target, args, kwargs, **options)

    return apply


class Queues:
    """Which queue a message came from: its consumer's tag tells."""

    def __init__(self, worker: "WorkController") -> None:
        self.worker, self.known = worker, {}

    def __call__(self, request: Any) -> str:
        """Return the name of the queue of a request; "" for one that the worker was not told to consume from."""
        found = request.message.delivery_info
        # Without AMQP there is no tag, and the routing key is the queue's name.
        key = found.get("consumer_tag") or found.get("routing_key")
        if key not in self.known:
            tags = getattr(self.worker.consumer.task_consumer, "_active_tags", {})
            called = {queue.name: labels.label(queue) for queue in self.worker.app.amqp.queues.values()}
            self.known = {key: called.get(name, name) for name, tag in tags.items() for key in (tag, name)}
        return self.known.get(key, "")


def connect() -> None:
    """Make publishers stamp their messages, and a worker of this process count, if the guard started it."""
    from celery import signals

    signals.before_task_publish.connect(stamp, weak=False)
    heartbeat, program = os.environ.get("CELERY_OPS_HEARTBEAT_FILE"), os.environ.get("CELERY_OPS_PROGRAM")
    if not heartbeat or not program:
        return

    @signals.worker_init.connect(weak=False)
    def in_worker(sender: "WorkController", **_: Any) -> None:
        name = f"{program}.{os.getpid()}-{int(time.time())}{COUNTERS}"
        _add_step(sender, Counters(Path(heartbeat).with_name(name)))


def _add_step(worker: "WorkController", counters: Counters) -> None:
    from celery import bootsteps, signals

    class Count(bootsteps.StartStopStep):
        """Puts the counting in front of the pool, before the consumer takes the pool's `apply_async`."""

        requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

        def start(self, worker: "WorkController") -> None:
            counters.expect(worker.app.tasks)
            worker.pool.apply_async = counting(counters, worker.pool.apply_async, Queues(worker))
            counters.write()
            repeat(worker, EVERY, counters.write)

    worker.app.steps["worker"].add(Count)
    signals.task_unknown.connect(lambda **_: counters.refuse("unknown"), weak=False)
    signals.task_rejected.connect(lambda **_: counters.refuse("undecodable"), weak=False)
    # A task that runs and is terminated counts as failed.
    signals.task_revoked.connect(
        lambda expired=False, terminated=False, **_: (
            None if terminated else counters.refuse("expired" if expired else "revoked")
        ),
        weak=False,
    )
    signals.worker_shutdown.connect(lambda **_: counters.write(), weak=False)
