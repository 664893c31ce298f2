"""Publish many tasks: as safe as one by one with the broker's confirms, and as fast as without.

`apply_async` waits for the confirm of each message. Here all go out on one channel, and the confirms are collected
behind them. The messages are made by the tasks' own `apply_async`, with its routes, queues, serializers, headers,
delays and signals.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any

from amqp import spec
from billiard.exceptions import SoftTimeLimitExceeded
from celery.backends.rpc import RPCBackend
from celery.result import denied_join_result
from celery.utils import uuid
from kombu import Producer
from kombu.exceptions import KombuError, OperationalError

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from kombu import Connection

UNCONFIRMED = 500
"""Messages on their way at most: sent, and not confirmed by the broker."""
PATIENCE = 30.0
"""Seconds to wait for the broker's next confirm."""

RETRIES = ("max_retries", "interval_start", "interval_step", "interval_max")


class NotPublished(Exception):
    """Not all messages are in the broker; what became of each.

    `confirmed`: the ids of the tasks that the broker has. `refused`: by id, why it has not this one. `unknown`: by id,
    the signature (with that id) of what was sent and got no answer; it may be in its queue, or not. `unsent` yields the
    signatures that were not tried, because the connection was lost.
    """

    def __init__(
        self,
        confirmed: list[str],
        refused: dict[str, str],
        unknown: dict[str, Signature],
        unsent: Iterator[Signature],
        lost: str = "",
    ) -> None:
        self.confirmed, self.refused, self.unknown, self.unsent = confirmed, refused, unknown, unsent
        first = next((f"; the first was refused with: {why}" for why in refused.values()), "")
        super().__init__(
            f"{len(confirmed)} messages confirmed, {len(refused)} refused, {len(unknown)} unknown{first}"
            + (f"; then the connection was lost, and no more were sent: {lost}" if lost else "")
        )


def publish_many(signatures: Iterable[Signature], *, unconfirmed: int = UNCONFIRMED) -> list[str]:
    """Publish the tasks of an application; return their ids, in this order, when the broker has confirmed all of them.

    At most `unconfirmed` messages are on their way at a time. Raises NotPublished where not all were confirmed, and
    SoftTimeLimitExceeded where the calling task's soft time limit ends meanwhile.
    """
    rest = iter(signatures)
    first = next(rest, None)
    if first is None:
        return []
    app, rest = first.app, chain((first,), rest)
    if app.conf.task_always_eager:
        return [signature.apply_async().id for signature in rest]
    with app.pool.acquire(block=True) as connection:
        batch = Batch(app, unconfirmed)
        lost = batch.publish(connection, rest)
        if lost is not None:  # raised here, so that the pool gets another connection
            raise batch.failed(lost)
    if batch.refused:
        raise batch.failed()
    return batch.ids


class NothingSent(Exception):
    """The application's own `apply_async` returned without a task."""


class Batch:
    """What became of the messages of one call."""

    def __init__(self, app: Celery, unconfirmed: int) -> None:
        self.app, self.most = app, max(1, unconfirmed)
        self.ids: list[str] = []
        self.refused: dict[str, str] = {}
        self.sent: dict[int, tuple[str, Signature, Any]] = {}
        """By delivery tag, what has no answer yet: id, signature, and the message's own id."""
        self.unsent: Iterator[Signature] = iter(())
        self.tag = 0
        self.is_cut = False
        self.cork = Cork()

    def publish(self, connection: Connection, signatures: Iterator[Signature]) -> Exception | None:
        """Publish all of them; return the error that ended it, after which the connection can't be used."""
        self.unsent = signatures
        try:
            channel = open_channel(connection, self.app.conf.task_publish_retry_policy)
        except (*connection.connection_errors, *connection.channel_errors, KombuError) as error:
            return error
        producer = Producer(channel, auto_declare=False)
        if hasattr(channel, "confirm_select"):
            self.follow(channel)
        try:
            for signature in signatures:
                task_id = signature.options.get("task_id") or uuid()
                self.current = task_id, signature
                before = self.tag
                try:
                    task_id = self.apply(signature, task_id, producer)
                except SoftTimeLimitExceeded:
                    raise  # of the task that publishes
                except Exception as error:
                    is_open = connection.connected and getattr(channel, "is_open", True) and not self.is_cut
                    if not is_open or isinstance(error, (TimeoutError, OperationalError)):
                        if self.tag == before:
                            self.unsent = chain((signature,), signatures)
                        else:
                            self.ids.append(task_id)
                        return error
                    self.refused[task_id] = f"{type(error).__name__}: {error}"
                self.ids.append(task_id)
                if len(self.sent) >= self.most:
                    self.await_confirms(connection, self.most // 2)
            self.await_confirms(connection, 0)
        except (*connection.connection_errors, *connection.channel_errors, KombuError) as error:
            return error
        connection.maybe_close_channel(channel)
        return None

    def apply(self, signature: Signature, task_id: str, producer: Producer) -> str:
        """Make the message and send it, without Celery's subscription to its result: it is asked for with `get`.

        Return the id of its result: of the same task that waits already, where the application's own `apply_async`
        sends none twice (celery-singleton). Raises NothingSent where that tells none (celery-once).
        """
        # An rpc:// backend declares its reply queue there, once.
        with nullcontext() if isinstance(self.app.backend, RPCBackend) else denied_join_result():
            result = signature.apply_async(task_id=task_id, producer=producer, retry=False)
        if (found := getattr(result, "id", None)) is None:
            raise NothingSent("its apply_async sent nothing")
        return found

    def follow(self, channel: Any) -> None:
        """Make the channel send without waiting, and note the broker's answers."""
        self.cork = Cork(channel)
        channel.events["basic_ack"].add(self.on_ack)
        channel.events["basic_nack"].add(self.on_nack)
        channel.events["basic_return"].add(self.on_return)

        def send(message: Any, exchange: str = "", routing_key: str = "", **_: Any) -> None:
            # Celery's events have no such id, and need no queue.
            own_id = message.properties.get("correlation_id")
            self.tag += 1
            self.sent[self.tag] = (*self.current, own_id)
            try:
                self.cork.set(True)
                channel.send_method(
                    spec.Basic.Publish, "Bssbb", (0, exchange, routing_key, own_id is not None, False), message
                )
            except Exception:
                self.is_cut = True
                raise

        channel.basic_publish = send

    def await_confirms(self, connection: Connection, most: int) -> None:
        """Read the broker's answers until no more than `most` messages lack one."""
        self.cork.set(False)
        while len(self.sent) > most:
            connection.drain_events(timeout=PATIENCE)

    def on_ack(self, tag: int, multiple: bool) -> None:
        """The broker has this message, or all up to it."""
        for _ in self.answered(tag, multiple):
            pass

    def on_nack(self, tag: int, multiple: bool) -> None:
        """The broker has not taken it."""
        for task_id in self.answered(tag, multiple):
            self.refused[task_id] = "the broker refused it (nack): its queue may be full"

    def on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        """No queue takes it. The broker says so before it confirms it."""
        own_id = message.properties.get("correlation_id")
        for task_id, _, sent in self.sent.values():
            if sent == own_id:
                why = f"no queue is bound to the exchange {exchange!r} with routing key {routing_key!r}"
                self.refused[task_id] = f"{why}: {error}"
                return

    def answered(self, tag: int, multiple: bool) -> Iterator[str]:
        """Forget what is answered; yield its ids."""
        if multiple:
            for older in [sent for sent in self.sent if sent < tag]:
                yield self.sent.pop(older)[0]
        if found := self.sent.pop(tag, None):
            yield found[0]

    def failed(self, lost: Exception | None = None) -> NotPublished:
        """Return the error that says what became of each."""
        unknown = {
            task_id: signature.clone(task_id=task_id)
            for task_id, signature, _ in self.sent.values()
            if task_id not in self.refused
        }
        confirmed = [task_id for task_id in self.ids if task_id not in self.refused and task_id not in unknown]
        why = f"{type(lost).__name__}: {lost}" if lost else ""
        return NotPublished(confirmed, self.refused, unknown, self.unsent, why)


class Cork:
    """Lets the kernel send full packets in the place of one for each message, as long as nobody waits for an answer.

    It sends what it has after 200 ms in any case (man 7 tcp, TCP_CORK).
    """

    def __init__(self, channel: Any = None) -> None:
        """`channel` may be that of a transport without a socket, which then goes on as it does."""
        self.is_closed = False
        transport = getattr(getattr(channel, "connection", None), "transport", None)
        self.socket = getattr(transport, "sock", None) if hasattr(socket, "TCP_CORK") else None
        if self.socket is not None:
            wait = channel.wait

            def opened(*arguments: Any, **options: Any) -> Any:  # a queue is declared
                self.set(False)
                return wait(*arguments, **options)

            channel.wait = opened

    def set(self, closed: bool) -> None:
        """Collect what is written from now on; or send it."""
        if self.socket is not None and closed is not self.is_closed:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(closed))
            self.is_closed = closed


def open_channel(connection: Connection, policy: Mapping[str, Any]) -> Any:
    """Return a new channel of the connection, in confirm mode where the transport has one (RabbitMQ).

    `policy` is Celery's `task_publish_retry_policy`: how often it tries to connect.
    """

    def opened() -> Any:
        # One that has failed comes back from the pool closed.
        connection.ensure_connection(**{key: value for key, value in policy.items() if key in RETRIES})
        channel = connection.channel()
        if hasattr(channel, "confirm_select"):
            channel.confirm_select()
        return channel

    try:
        return opened()
    except connection.recoverable_connection_errors:
        connection.collect()  # a restart of the broker has cut it, and nobody noticed so far
        return opened()
