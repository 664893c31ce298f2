"""Acknowledges short tasks in batches, where a worker has messages ahead (``--prefetch-multiplier`` above 1).

With quorum queues each acknowledgement by itself is a write that the broker has to agree on with itself; one for
sixteen messages costs it a quarter. What is held is never more than half of what the worker has ahead, and for HOLD
seconds at most: a worker that is killed has so many tasks of its last moment run again. A worker without messages
ahead, which is the kit's default, acknowledges at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer

HOLD = 0.05
"""Seconds that an acknowledgement may wait for others."""


class Acknowledgements:
    """The acknowledgements of one channel. It hands them on by `acknowledge(tag, multiple=...)`.

    `most` are held at a time, until `later(HOLD, flush)` calls.
    """

    def __init__(
        self, acknowledge: Callable[..., Any], most: int, later: Callable[[float, Callable[[], None]], Any]
    ) -> None:
        self.acknowledge, self.most, self.later = acknowledge, most, later
        self.held: set[int] = set()
        self.newest = 0
        """The highest tag that was acknowledged or rejected. Tags count up from 1, in the order of delivery."""
        self.running: set[int] = set()
        """The tags below it that were neither: never more than the worker may have."""
        self.early: set[int] = set()
        """The tags of tasks that must not run again, and are acknowledged before they run."""
        self.waits = self.is_over = False

    def receive(self, request: Any) -> None:
        """Note a task that is given to the pool."""
        if not request.task.acks_late:
            self.early.add(request.message.delivery_tag)

    def answered(self, tag: int) -> None:
        """Note that a message was acknowledged or rejected."""
        if tag > self.newest:
            self.running.update(range(self.newest + 1, tag))
            self.newest = tag
        else:
            self.running.discard(tag)

    def add(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, soon."""
        if multiple or self.is_over:
            self.acknowledge(tag, multiple=multiple)
            return
        self.answered(tag)
        if tag in self.early:
            self.early.discard(tag)
            self.acknowledge(tag, multiple=False)
            return
        self.held.add(tag)
        if len(self.held) >= self.most:
            self.flush()
        elif not self.waits:
            self.waits = True
            self.later(HOLD, self.on_time)

    def on_time(self) -> None:
        """Acknowledge what is held for long enough."""
        self.waits = False
        self.flush()

    def flush(self) -> None:
        """Acknowledge all that is held: what is older than any running task as one, the rest one by one."""
        held, self.held = sorted(self.held), set()
        oldest = min(self.running, default=self.newest + 1)
        if older := [tag for tag in held if tag < oldest]:
            self.acknowledge(older[-1], multiple=True)
        for tag in held[len(older) :]:
            self.acknowledge(tag, multiple=False)

    def end(self) -> None:
        """Acknowledge what is held, and from now on at once: the worker stops, and its loop ends."""
        self.is_over = True
        self.flush()


def connect() -> None:
    """Make a worker of this process acknowledge in batches where that is worth it."""
    from celery import signals

    signals.worker_init.connect(lambda sender, **_: _add_step(sender), weak=False)


def _add_step(worker: WorkController) -> None:
    from celery import bootsteps, signals
    from celery.utils.log import get_logger

    class Batches(bootsteps.StartStopStep):
        """Gets between the consumer and its channel, anew for each connection."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: Consumer, **options: Any) -> None:
            super().__init__(consumer, **options)
            self.batches: Acknowledgements | None = None

        def start(self, consumer: Consumer) -> None:
            self.batches = None
            ahead = consumer.initial_prefetch_count - consumer.pool.num_processes
            channel = consumer.task_consumer.channel
            # Pools without an event loop acknowledge in their own threads; other transports have no such tags.
            if ahead < 4 or not consumer.hub or not hasattr(channel, "confirm_select"):
                return
            acknowledge, reject = channel.basic_ack, channel.basic_reject

            def guarded(tag: int, multiple: bool) -> None:
                try:
                    acknowledge(tag, multiple=multiple)
                except consumer.connection_errors as error:  # as Celery does it: the broker delivers them again
                    get_logger(__name__).critical("Couldn't acknowledge up to %s, reason: %r", tag, error)

            batches = self.batches = Acknowledgements(guarded, ahead // 2, consumer.hub.call_later)

            def basic_reject(tag: int, requeue: bool) -> Any:
                batches.answered(tag)
                return reject(tag, requeue)

            channel.basic_ack, channel.basic_reject = batches.add, basic_reject
            signals.task_received.disconnect(dispatch_uid=__name__)  # that of the connection before
            signals.task_received.connect(
                lambda request, **_: batches.receive(request), weak=False, dispatch_uid=__name__
            )

        def stop(self, consumer: Consumer) -> None:
            if self.batches:
                self.batches.end()

    worker.app.steps["consumer"].add(Batches)
