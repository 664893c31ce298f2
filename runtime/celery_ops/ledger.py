"""The ledger: numbered tasks published through faults, then reconciled with what was executed.

``celery-ops-soak publish`` publishes with confirms at a steady rate, whatever happens to the broker meanwhile, and
samples the queue's consumers. Each execution leaves lines in ``/var/lib/<app>/ledger/<run>`` of the host that ran it,
outside broker and result store. ``collect`` waits for those lines and prints them; ``reconcile`` reads the lines of all
hosts and prints one JSON object: attempted, confirmed, executed, lost (confirmed, never finished), doubled (finished
twice), rerun (begun again after an end by force), and in seconds how long tasks waited, how long a publish took until
it was confirmed, and the longest time without a confirm (stall) and without a task begun (standstill). A publish that
was not confirmed may have arrived or not, so its number counts as neither; the next attempt has the next number.

An application is tested with the settings it has: one that acknowledges early will see tasks lost when workers die.
Its publishes alone are confirmed here whether it asks for that or not (`with_confirms`).
"""

import contextlib
import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Task, shared_task

from celery_ops.launch.env import application_name
from celery_ops.layout import Layout

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection, Producer

SAMPLE = 0.1
"""Seconds between two looks at the queue."""
LEADER_ANSWERS = 0.25
"""Seconds that RabbitMQ waits for a quorum queue's leader before it answers with no consumer and no task
(`rabbit_quorum_queue:stat/1`)."""
PROMPT = 1.0
"""Seconds within which a task is begun in normal service."""
PATIENCE = 10
"""Seconds that a publish waits for its confirm, where the application does not say."""
AFTER_FAILURE = 0.2
"""Seconds between a publish that failed and the next attempt."""
# Drawn for every number from a fixed seed, so that runs can be compared: mostly short tasks, some long (seconds), and
# of each twenty one with a countdown, one that asks to be retried, one whose result is kept.
DURATIONS = [0.0] * 60 + [0.05] * 25 + [0.5] * 10 + [3.0] * 5
KINDS = ["plain"] * 17 + ["countdown", "retry", "result"]
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def directory() -> Path:
    """Return where this host's executions are written."""
    return Path(os.environ.get("CELERY_OPS_LEDGER_DIRECTORY") or Layout(application_name("celery")).ledger)


@shared_task(name="celery_ops.ledger", bind=True, max_retries=1)
def work(self: Task, run: str, number: int, seconds: float, kind: str = "plain") -> int:
    """Task `number` of a run, which takes `seconds`; of the kind "retry" it fails once first."""
    note(run, number, "began")
    if kind == "retry" and self.request.retries == 0:
        note(run, number, "retried")
        raise self.retry(countdown=1)
    time.sleep(min(seconds, 60))
    note(run, number, "done")
    return number


def note(run: str, number: int, what: str) -> None:
    """Write a line that stays: a single write in append mode is whole or absent, and on disk when this returns.

    Raises ValueError for a run that is no name of a file.
    """
    if not RUN.fullmatch(run):
        raise ValueError(f"{run!r} can't name a run; use [A-Za-z0-9_-]")
    directory().mkdir(mode=0o750, parents=True, exist_ok=True)
    # A program of the kit runs in releases/<id>/app or, with celery_app_directory, below it.
    here = Path.cwd()
    release = next((top.name for top in (here, *here.parents) if top.parent.name == "releases"), here.parent.name)
    line = f"{int(number)} {what} {time.time():.4f} {release} {os.getpid()}\n"
    with (directory() / run).open("ab", buffering=0) as file:
        file.write(line.encode())
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Attempt:
    """One publish: its time in seconds since the epoch, whether the broker confirmed it, and how long it took."""

    number: int
    at: float
    kind: str
    confirmed: bool
    took: float = 0.0


def with_confirms(app: "Celery") -> "Connection":
    """Return a connection on which a publish ends when the broker has the message; else as the application's own.

    Without, a publish ends when the message is on its way, and the last ones are lost where the connection ends soon
    after: RabbitMQ drops what its channel has not come to.
    """
    own = {"read_timeout": PATIENCE, "write_timeout": PATIENCE, **(app.conf.broker_transport_options or {})}
    return app.connection_for_write(transport_options={**own, "confirm_publish": True})


class Publisher:
    """Publishes numbered tasks at a steady rate over a connection of its own, which it makes again after a failure.

    As with Celery's own pool it is the same one again, which begins with the broker's node that it was last at: a new
    one would first ask, after each failure, the URL's first node, though that may be the one that is gone.
    """

    def __init__(self, app: "Celery", connect: Callable[[], "Connection"], queue: str, run: str, rate: float) -> None:
        self.app, self.connect, self.queue, self.run, self.rate = app, connect, queue, run, rate
        self.attempts: list[Attempt] = []
        self.confirmed = 0
        self.failure = ""
        """What went wrong last."""
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._drawn = random.Random(run)

    def publish_until(self, over: Callable[[], bool]) -> None:
        """Publish until `over` says so. An outage is not caught up with: that would be another load."""
        due = time.monotonic()
        while not over():
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / self.rate, time.monotonic())
            self._attempt(len(self.attempts))
        self._disconnect()

    def _attempt(self, number: int) -> None:
        at, kind = time.time(), self._drawn.choice(KINDS)
        arguments = (self.run, number, self._drawn.choice(DURATIONS), kind)
        try:
            if self._producer is None:
                self._connection = self._connection or self.connect()
                self._producer = self.app.amqp.Producer(self._connection)
            self.app.send_task(
                "celery_ops.ledger",
                arguments,
                queue=self.queue,
                countdown=self._drawn.randint(2, 5) if kind == "countdown" else None,
                ignore_result=kind != "result",
                producer=self._producer,
                retry=False,
            )
        except Exception as error:
            self.failure = f"task {number} was not confirmed: {error!r}"
            self.attempts.append(Attempt(number, at, kind, confirmed=False))
            self._disconnect()
            time.sleep(AFTER_FAILURE)
        else:
            self.attempts.append(Attempt(number, at, kind, confirmed=True, took=time.time() - at))
            self.confirmed += 1

    def _disconnect(self) -> None:
        """Let go of the connection without a word to a broker that may not listen."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.collect()
        self._producer = None


class Monitor(threading.Thread):
    """Asks the broker every 100 ms how many consumers and waiting tasks the queue has."""

    def __init__(self, connect: Callable[[], "Connection"], queue: str) -> None:
        super().__init__(daemon=True)
        self.connect, self.queue = connect, queue
        self.samples: list[tuple[float, int, int]] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until told to stop; where the broker or the queue's leader does not answer, that is no sample."""
        while not self.over.is_set():
            connection = None
            try:
                connection = self.connect()
                while not self.over.wait(SAMPLE):
                    asked = time.monotonic()
                    answer = connection.default_channel.queue_declare(self.queue, passive=True)
                    known = answer.consumer_count or answer.message_count
                    if known or time.monotonic() - asked < LEADER_ANSWERS:
                        self.samples.append((time.time(), answer.consumer_count, answer.message_count))
            except Exception:
                self.over.wait(SAMPLE)
            finally:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.collect()


@dataclass
class Executions:
    """What all hosts have written: first begin of every number, how often each was begun, retried and finished."""

    first: dict[int, float] = field(default_factory=dict)
    begun: Counter[int] = field(default_factory=Counter)
    retried: Counter[int] = field(default_factory=Counter)
    done: Counter[int] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Executions":
        """Read the lines of `note`. One that a power cut left unfinished is none."""
        found = cls()
        for line in lines:
            match line.split():
                case [number, "began", at, _, _]:
                    found.first[int(number)] = min(float(at), found.first.get(int(number), float(at)))
                    found.begun[int(number)] += 1
                case [number, "retried", _, _, _]:
                    found.retried[int(number)] += 1
                case [number, "done", _, release, _]:
                    found.done[int(number)] += 1
                    found.releases[release] += 1
        return found


def longest_gap(moments: Iterable[float]) -> float:
    """Return the longest time between two successive moments; 0 where there are not two."""
    ordered = sorted(moments)
    return round(max((later - earlier for earlier, later in itertools.pairwise(ordered)), default=0.0), 2)


def reconcile(
    attempts: Iterable[Attempt],
    executions: Executions,
    samples: Iterable[tuple[float, int, int]] = (),
    since: float | None = None,
) -> dict[str, Any]:
    """Return what was counted: nothing confirmed may be lost.

    With `since`, the end of a fault in seconds since the epoch, also "recovery": the seconds from then until every
    task was confirmed, and begun within PROMPT seconds, again.
    """
    attempts, samples = list(attempts), list(samples)
    confirmed = {attempt.number for attempt in attempts if attempt.confirmed}
    # What has a countdown has to wait.
    waits = {
        attempt.number: executions.first[attempt.number] - attempt.at
        for attempt in attempts
        if attempt.kind != "countdown" and attempt.number in executions.first
    }
    sorted_waits = sorted(waits.values())
    took = sorted(attempt.took for attempt in attempts if attempt.confirmed)
    counted = {
        "attempted": len(attempts),
        "confirmed": len(confirmed),
        "executed": len(executions.done),
        "lost": sorted(confirmed - set(executions.done)),
        "doubled": sorted(number for number, times in executions.done.items() if times > 1),
        "rerun": sum(
            max(0, times - executions.retried[number] - max(1, executions.done[number]))
            for number, times in executions.begun.items()
        ),
        "releases": dict(executions.releases),
        "samples": len(samples),
        "without_consumer": sum(1 for _, consumers, _ in samples if consumers == 0),
        "wait_p50": _median(sorted_waits),
        "wait_p99": round(sorted_waits[int(len(sorted_waits) * 0.99)], 4) if sorted_waits else None,
        "wait_max": round(sorted_waits[-1], 4) if sorted_waits else None,
        "confirm_p99": round(took[int(len(took) * 0.99)], 4) if took else None,
        "stall": longest_gap(attempt.at + attempt.took for attempt in attempts if attempt.confirmed),
        "standstill": longest_gap(executions.first.values()),
    }
    if since is not None:
        late = [executions.first[number] for number, wait in waits.items() if wait > PROMPT]
        late += [attempt.at for attempt in attempts if not attempt.confirmed]
        counted["recovery"] = round(max([0.0, *(at - since for at in late)]), 2)
    return counted


def _median(ordered: list[float]) -> float | None:
    # Not by `statistics`: of that name may be a module of the application's, which would be imported in its place.
    middle = len(ordered) // 2
    return round((ordered[middle] + ordered[~middle]) / 2, 4) if ordered else None
