"""A worker consumes from no queue that is paused on its host, and a scheduler that is held sends nothing.

A worker that a deploy replaces is held as well, by a file beside its heartbeat: the new one takes all, and should it
fail, the old one goes on.

Both read the file of `celery_ops.pause` before they begin and every few seconds. A worker cancels its consumers and
keeps its process: what it has received runs to its end. A scheduler that goes on sends what became due meanwhile once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops import pause
from celery_ops.layout import HOLD
from celery_ops.worker import labels
from celery_ops.worker.repeat import repeat

if TYPE_CHECKING:
    from celery.beat import Service
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer
    from kombu import Queue

EVERY = 0.5
"""Seconds between two looks at the files; a deploy waits for one."""


def connect() -> None:
    """Make worker and scheduler of this process heed what is paused, if the guard started them."""
    program = os.environ.get("CELERY_OPS_PROGRAM")
    if not program:
        return
    from celery import signals

    path = pause.file()

    @signals.worker_init.connect(weak=False)
    def in_worker(sender: WorkController, **_: Any) -> None:
        heartbeat = os.environ.get("CELERY_OPS_HEARTBEAT_FILE")
        _add_steps(sender, Intake(path, program, Path(heartbeat).with_suffix(HOLD) if heartbeat else None))

    @signals.beat_init.connect(weak=False)
    def in_scheduler(sender: Service, **_: Any) -> None:
        if not getattr(
            sender, "celery_ops_held", False
        ):  # connected twice: by celery-ops-scheduler and by the application
            sender.celery_ops_held = True
            hold(sender, path)


class Intake:
    """What of a worker's queues is cancelled because it is paused; what an operator cancels by hand is left alone."""

    def __init__(self, path: Path, program: str, hold: Path | None = None) -> None:
        self.path, self.program, self.hold = path, program, hold
        self.paused: set[str] = set()
        self.cancelled: dict[str, Queue] = {}
        self.was_held = False
        self.on_change: Callable[[], object] = lambda: None

    @property
    def is_held(self) -> bool:
        """Whether a deploy holds this very generation now; a file from before a reboot counts for nothing."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            if self.hold:
                said = json.loads(self.hold.read_text(encoding="utf-8"))
                return said["since"] <= time.monotonic() < said["until"]
        return False

    def apply(self, consumer: Consumer) -> None:
        """Cancel the consumers of what is paused, and consume again from what is not any more; in the main loop."""
        if consumer.task_consumer is None:
            return  # not connected; this is asked again when it is
        queues = consumer.app.amqp.queues
        consumed = labels.consumed(consumer.app)
        own = {*consumed, *self.paused}
        held = self.is_held
        paused = own if held else pause.paused_queues(pause.read(self.path), self.program, own)
        # Before Celery 5.7 a queue is selected by the name that -Q has, which may be an alias.
        for name, queue in list(queues.consume_from.items()):
            if (label := labels.label(queue)) in paused:
                self.cancelled[label] = queue
                consumer.cancel_task_queue(name)
        for label in sorted(self.paused - paused - consumed.keys()):
            queue = self.cancelled.pop(label)
            queues.select_add(queue)  # before Celery 5.7 the next line does not, and a new connection would lack it
            consumer.add_task_queue(queue.name)
        if (paused, held) != (self.paused, self.was_held):
            self.paused, self.was_held = paused, held
            self.on_change()


def _add_steps(worker: WorkController, intake: Intake) -> None:
    from celery import bootsteps

    class Look(bootsteps.StartStopStep):
        """Looks at the file from the worker's own timer, and acts in its main loop."""

        requires = ("celery.worker.components:Timer",)

        def start(self, worker: WorkController) -> None:
            repeat(worker, EVERY, look)

    class Paused(bootsteps.StartStopStep):
        """Cancels what is paused before the first message could come, with each new connection."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Consumer) -> None:
            intake.apply(consumer)

    def look() -> None:
        consumer = getattr(worker, "consumer", None)
        if consumer is not None and consumer.blueprint.state == bootsteps.RUN:
            consumer.call_soon(intake.apply, consumer)

    def tell() -> None:
        if heartbeat := getattr(worker, "celery_ops_heartbeat", None):
            heartbeat.write()

    worker.celery_ops_intake, intake.on_change = intake, tell
    worker.app.steps["worker"].add(Look)
    worker.app.steps["consumer"].add(Paused)


def hold(service: Service, path: Path) -> None:
    """Make the scheduler's ticks wait while it is held."""
    from celery.utils.log import get_logger

    scheduler, logger, was_held = service.scheduler, get_logger("celery.beat"), [False]
    tick = scheduler.tick

    def ticked(*arguments: Any, **options: Any) -> Any:
        held = pause.is_scheduler_held(pause.read(path))
        if held != was_held[0]:
            logger.warning("Held: nothing is sent until resume" if held else "Resumed: what became due is sent once")
            was_held[0] = held
        return EVERY if held else tick(*arguments, **options)

    scheduler.tick = ticked
