"""The heartbeat: a program's main loop writes down, every few seconds, how it is.

The file is named by CELERY_OPS_HEARTBEAT_FILE, which the guard sets: ``/run/<app>/<program>.heartbeat``. It is
written by the loop itself, not by a thread beside it: a loop that hangs doesn't write. docs/watchdog.md says
what is in it. The watchdog (`celery_ops.watchdog`) reads it; nothing is written where the guard did not start us.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops.layout import HEARTBEAT, program_of
from celery_ops.worker import failover, labels
from celery_ops.worker.repeat import repeat

if TYPE_CHECKING:
    from celery import Celery
    from celery.beat import Service
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer

EVERY = 5.0
"""Seconds between two heartbeats of a worker. A scheduler's comes with each tick."""

STARTING, STANDBY, READY, DRAINING = "starting", "standby", "ready", "draining"
"""STANDBY is a scheduler that another one leads before (`celery_ops.lease`)."""


class Heartbeat:
    """The heartbeat file of this process. States only go forward: starting, ready, draining."""

    def __init__(self, path: str, kind: str, broker: str = "") -> None:
        self.path, self.kind, self.broker, self.pid = path, kind, broker, os.getpid()
        self.state, self.since = STARTING, time.monotonic()

    def enter(self, state: str, due: float = EVERY) -> None:
        """Be in `state` from now on, unless it is over already; write that down at once."""
        if self.state not in (state, DRAINING):
            self.state, self.since = state, time.monotonic()
        self.write(due)

    def about(self) -> dict[str, Any]:
        """Return what else there is to tell."""
        return {}

    def write(self, due: float = EVERY) -> None:
        """Replace the file in one step; `due` is in how many seconds the next one comes.

        A signal handler may call this in the midst of itself: its state has to be the one that stays.
        """
        if os.getpid() != self.pid:
            return  # a pool process, forked with its parent's timers
        while True:
            state = self.state
            beat = {
                "kind": self.kind,
                "pid": self.pid,
                "state": state,
                "since": round(self.since, 1),
                "beat": round(time.monotonic(), 1),
                "due": round(due, 1),
                "time": round(time.time(), 1),
                "broker": self.broker,
                **self.about(),
            }
            # A full or missing /run must harm no task: the watchdog sees an old heartbeat, and says so.
            with contextlib.suppress(OSError):
                fresh = Path(f"{self.path}.{state}")
                fresh.write_text(json.dumps(beat) + "\n", encoding="utf-8")
                fresh.replace(self.path)
            if state == self.state:
                return


class WorkerHeartbeat(Heartbeat):
    """How a worker is: connected or not, what it consumes, how many tasks it has."""

    def __init__(self, path: str, worker: "WorkController") -> None:
        super().__init__(path, "worker", address(worker.app))
        self.worker = worker

    def about(self) -> dict[str, Any]:
        """Return the worker's part."""
        from celery.worker import state

        found: dict[str, Any] = {
            "node": self.worker.hostname,
            "pool": self.worker.pool_cls.__module__.rpartition(".")[2],
            "slots": self.worker.concurrency,
            "active": len(state.active_requests),
            "reserved": len(state.reserved_requests),
            "accepted": state.all_total_count[0],
            "connected": False,
            "queues": {},
            "aliases": {},
            "oldest": min((began for one in tuple(state.active_requests) if (began := one.time_start)), default=None),
            "paused": sorted(getattr(getattr(self.worker, "celery_ops_intake", None), "paused", ())),
        }
        # Pool and connection may be coming or going in this very moment.
        with contextlib.suppress(Exception):
            # With --autoscale the pool grows to that many by itself.
            found["slots"] = self.worker.max_concurrency or self.worker.pool.num_processes
        with contextlib.suppress(Exception):
            consumer = self.worker.consumer
            found["connected"] = bool(consumer.connection and consumer.connection.connected)
            found["queues"] = consumed(consumer)
            names = {label: queue.name for label, queue in labels.consumed(self.worker.app).items()}
            found["aliases"] = {label: name for label, name in names.items() if label != name}
        return found


def read(path: Path) -> dict[str, Any]:
    """Return a heartbeat, empty where there is none that can be read."""
    try:
        beat = json.loads(path.read_text(encoding="utf-8"))
        return beat if {"kind", "pid", "state", "since", "beat", "due"} <= set(beat) else {}
    except (OSError, ValueError, TypeError):
        return {}


def workers(run: Path) -> list[dict[str, Any]]:
    """Return the workers of this host as their heartbeats tell: queues, what is paused, what runs and since when."""
    found = []
    for path in sorted(run.glob(f"*{HEARTBEAT}")):
        beat = read(path)
        if beat.get("kind") == "worker" and Path(f"/proc/{beat['pid']}").exists():
            name = path.name.removesuffix(HEARTBEAT)
            keys = ("node", "state", "paused", "active", "slots", "oldest", "time", "beat")
            found.append({"name": name, "program": program_of(name), **{key: beat.get(key) for key in keys}})
            found[-1]["queues"] = sorted({*beat.get("queues", {}), *(beat.get("paused") or [])})
    return found


def address(app: "Celery") -> str:
    """Return where the broker is, "transport://host:port", without user and password; "" where it isn't known.

    The nodes of a cluster have semicolons between.
    """
    with contextlib.suppress(Exception):
        brokers = [app.connection_for_read(url) for url in failover.urls_of(app)]
        ports = [broker.port or broker.get_transport_cls().default_port for broker in brokers]
        if all(ports):
            return ";".join(
                f"{broker.transport_cls}://{broker.hostname}:{port}"
                for broker, port in zip(brokers, ports, strict=True)
            )
    return ""


def consumed(consumer: "Consumer") -> dict[str, bool]:
    """Return the queues it was told to consume from, and of each whether its consumer is really there."""
    tasks = consumer.task_consumer
    channel = getattr(tasks, "channel", None)
    tags = getattr(tasks, "_active_tags", {})
    # amqp's channel holds a callback for each consumer that the broker knows of.
    known = getattr(channel, "callbacks", None)
    is_open = bool(getattr(channel, "connection", None)) and getattr(channel, "is_open", True)
    wanted = sorted(labels.consumed(consumer.app).items())
    return {
        label: bool(is_open and (tag := tags.get(queue.name)) and (known is None or tag in known))
        for label, queue in wanted
    }


def connect() -> None:
    """Make worker and scheduler of this process write heartbeats, if the guard named a file for them."""
    path = os.environ.get("CELERY_OPS_HEARTBEAT_FILE")
    if not path:
        return
    from celery import signals

    @signals.worker_init.connect(weak=False)
    def in_worker(sender: "WorkController", **_: Any) -> None:
        _add_steps(sender, WorkerHeartbeat(path, sender))

    @signals.beat_init.connect(weak=False)
    def in_scheduler(sender: "Service", **_: Any) -> None:
        if getattr(sender, "celery_ops_followed", False):
            return  # connected twice: by celery-ops-scheduler and by the application
        sender.celery_ops_followed = True
        _follow_ticks(sender, Heartbeat(path, "scheduler", address(sender.app)))


def _add_steps(worker: "WorkController", heartbeat: WorkerHeartbeat) -> None:
    from celery import bootsteps, signals

    class Pulse(bootsteps.StartStopStep):
        """Writes from the worker's own timer, which runs as long as its main loop does."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: "WorkController") -> None:
            heartbeat.write()
            repeat(worker, EVERY, heartbeat.write)

        def close(self, worker: "WorkController") -> None:
            """A shutdown begins, be it by a signal or by an error."""
            heartbeat.enter(DRAINING)

    class Lost(bootsteps.StartStopStep):
        """Says at once that the connection is gone: the loop stands still while a worker reconnects."""

        def stop(self, consumer: "Consumer") -> None:
            heartbeat.write()

    worker.celery_ops_heartbeat = heartbeat
    worker.app.steps["worker"].add(Pulse)
    worker.app.steps["consumer"].add(Lost)
    signals.worker_ready.connect(lambda **_: heartbeat.enter(READY), weak=False)
    # Sent by the signal handler itself: even a main loop that hangs gets there.
    signals.worker_shutting_down.connect(lambda **_: heartbeat.enter(DRAINING), weak=False)


def _follow_ticks(service: "Service", heartbeat: Heartbeat) -> None:
    tick = service.scheduler.tick

    def ticked(*arguments: Any, **options: Any) -> Any:
        pause = tick(*arguments, **options)
        heartbeat.enter(READY, due=float(pause or 0))
        return pause

    service.scheduler.tick = ticked
    heartbeat.write()
