"""The echo: a task that answers over the broker, so that a round trip can be seen without a result store."""

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celery import Task, shared_task
from celery.signals import before_task_publish
from kombu import Producer

from celery_ops.layout import ECHO_QUEUE
from celery_ops.worker.canary import OwnTask

if TYPE_CHECKING:
    from kombu import Connection

TASK = "celery_ops.echo"


@shared_task(name=TASK, base=OwnTask, bind=True, acks_late=False, ignore_result=False)
def echo(self: Task, queue: str) -> dict[str, Any]:
    """Return when and where it ran: ``{"time": seconds since the epoch, "host": name}``; put it into `queue`, too."""
    moment = {"time": time.time(), "host": socket.gethostname()}
    with self.app.connection_for_write() as connection, connection.channel() as channel:
        Producer(channel).publish(moment, exchange="", routing_key=queue, serializer="json", delivery_mode="transient")
    return moment


@before_task_publish.connect(sender=TASK)
def leave_expiry_to_the_worker(properties: dict[str, Any], **_: Any) -> None:
    """Make a worker drop an old one: what the broker drops, while no worker is there, is dead-lettered."""
    properties.pop("expiration", None)


class EchoQueue:
    """A queue of this process's own, in which echoes arrive."""

    def __init__(self, connection: "Connection", channel: Any) -> None:
        self.connection, self.received = connection, []
        self.queue = f"{ECHO_QUEUE}.{uuid.uuid4().hex}"
        channel.queue_declare(queue=self.queue, durable=False, exclusive=True, auto_delete=True)
        channel.basic_consume(
            queue=self.queue,
            no_ack=True,
            callback=lambda raw: self.received.append(self._moment(channel.message_to_python(raw))),
            consumer_tag=self.queue,
        )

    @staticmethod
    def _moment(message: Any) -> dict[str, Any]:
        """Return what an echo says, also where the application takes nothing but signed messages."""
        message.accept = {"application/json"}
        return message.decode()

    def take(self, seconds: float) -> dict[str, Any] | None:
        """Return an echo, waiting so long for it; None where none came."""
        with contextlib.suppress(TimeoutError):
            if not self.received:
                self.connection.drain_events(timeout=seconds)
        return self.received.pop(0) if self.received else None


@contextlib.contextmanager
def echo_queue(connection: "Connection") -> Iterator[EchoQueue]:
    """Give a queue for echoes; it goes with the channel."""
    with connection.channel() as channel:
        yield EchoQueue(connection, channel)
