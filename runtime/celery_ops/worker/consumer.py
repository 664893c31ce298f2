"""Celery's consumer, which throws no message away: what can't be decoded is a dead letter, too.

Nor does it forget what it handed to its pool, or hold on to what it will not begin; and it comes back soon after its
broker.
"""

import select
from contextlib import suppress
from functools import partial
from typing import Any

from celery import signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request
from kombu import Connection, Message

logger = get_logger(__name__)

RECONNECT = 4
POLL = 500
"""Milliseconds after which it is asked again whether a child that takes nothing lives."""


class Consumer(CeleryConsumer):
    """The worker's consumer (setting ``worker_consumer``)."""

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Reject a message whose body is damaged or of a refused type; Celery's own way is to acknowledge it."""
        logger.critical(
            "Can't decode a message of type %s: %s: %s. It goes to the dead queue",
            message.content_type,
            type(exc).__name__,
            exc,
        )
        message.reject_log_error(logger, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def ensure_connected(self, conn: Connection) -> Any:
        """Ask for a broker that is away every RECONNECT seconds at least; Celery's pauses grow to half a minute."""
        # Kombu before 5.7 goes one step of two seconds beyond the maximum.
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=RECONNECT - 2)
        return super().ensure_connected(conn)

    @property
    def jobs(self) -> dict[int, Any] | None:
        """What the pool's children were given or will be, by number; None for a pool without children."""
        return getattr(getattr(self.pool, "_pool", None), "_cache", None)

    def on_close(self) -> None:
        """Keep the tasks that a pool child has been given but has not yet said that it accepted.

        Celery forgets them when it closes its consumer, as the broker will deliver them again. But the child runs
        them, so that a task which arrives in the moment of a warm stop would be done, not acknowledged, and done twice.
        """
        jobs = {} if self.jobs is None else self.jobs
        waiting = {number: job for number, job in tuple(jobs.items()) if not getattr(job, "_accepted", True)}
        for job in waiting.values():
            finish_writing(job)
        super().on_close()
        for number, job in waiting.items():
            if is_with_a_child(job):
                jobs.setdefault(number, job)

    def stop(self) -> None:
        """Give back what arrived too late to be begun, so that another worker has it at once.

        Celery keeps it, neither done nor acknowledged, until the last of the tasks that run is done.
        """
        before = self.not_begun()
        super().stop()  # which forgets them; from here on nothing is delivered any more
        for request in before | self.not_begun():
            if not request.acknowledged:
                request.message.reject_log_error(logger, self.connection_errors, requeue=True)
                request.acknowledged = True

    def not_begun(self) -> set[Request]:
        """What was delivered and will not run in a worker that stops: held for its time or its rate, or for a child."""
        limited = {request for bucket in self.task_buckets.values() if bucket for request, _ in bucket.contents}
        # Only a pool with children forgets: one of threads does all that it was given before it ends.
        given = set(state.reserved_requests) - set(state.active_requests) if self.jobs is not None else set()
        return {
            *(request for request in given if not is_with_a_child(request._apply_result and request._apply_result())),
            *limited,
            # Due ones may be reserved as well, and run. (Celery before 5.7 keeps no set of those that wait.)
            *(
                set(getattr(state, "scheduled_requests", ()))
                - set(state.reserved_requests)
                - set(state.active_requests)
            ),
        }


def is_with_a_child(job: Any) -> bool:
    """Whether a pool child that lives has been given this job."""
    return bool(job is not None and job._write_to is not None and job._write_to._is_alive())


def finish_writing(job: Any) -> None:
    """Give a child the rest of a job that is written in pieces, as a large one is.

    A pool that is closed writes nothing more, and waits for the child, which waits for the rest: the worker would hang
    until its time to stop is over. (The `_flush_writer` of Celery 5.3 waits for ever.)
    """
    writer = getattr(job, "_writer", lambda: None)()
    if writer is None or not is_with_a_child(job):
        return
    poll = select.poll()
    poll.register(job._write_to.inqW_fd, select.POLLOUT)
    while is_with_a_child(job):
        if poll.poll(POLL):
            with suppress(OSError):
                next(writer, None)
            if writer.gi_frame is None:
                return
