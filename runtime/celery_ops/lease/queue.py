"""A candidate's place in the lease's queue: the connection over which it holds the token and sends its tasks.

Both over one connection: when the broker has given the token away, because this connection is gone for it, it takes
nothing from it any more.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from celery_ops.errors import PermanentError
from celery_ops.launch.env import connection_name
from celery_ops.layout import LEASE_QUEUE
from celery_ops.lease.state import HEARTBEAT, Lease, Lost, Runs, State, Token

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection, Producer

CONNECT, ANSWER = 2.0, 2.0
"""Seconds that the broker has for a connection, and for each answer: less than the fence."""
LOOK = 1.0
"""Seconds between two looks at a connection on which nothing is delivered."""
PREFETCH = 1000


def now() -> float:
    """Return the seconds of a clock that counts on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseQueue:
    """Stands in line for the lease of `app`, and holds it; `by` is shown to whoever asks who leads."""

    def __init__(self, app: Celery, name: str, by: str) -> None:
        self.app, self.queue, self.by = app, f"{LEASE_QUEUE}.{name}", by
        self.lease = Lease(by)
        self.connection: Connection | None = None
        self.channel: Any = None
        self.producer: Producer | None = None
        """What sends the tasks; see `renew_producer`."""

    # --- Standing by

    def await_turn(self, meanwhile: Callable[[bool, str], None]) -> Runs:
        """Wait until it is this candidate's turn; return what the one before it has run.

        `meanwhile(connected, why)` is called every second or so.
        """
        from amqp.exceptions import AMQPError, MessageNacked

        while True:
            try:
                if self.connection is None:
                    self._stand_in_line()
                while self.lease.state is not State.CLAIMED:
                    meanwhile(True, "")
                    self._listen(LOOK)
                    if self.lease.state is State.CLAIMING and self.lease.pending is None:
                        self._publish(self.lease.claim())
                return self.lease.newest.runs
            except Exception as error:
                if not isinstance(error, (AMQPError, MessageNacked)) and not self.is_broken(error):
                    raise
                self.close()
                meanwhile(False, why_of(error))
                time.sleep(LOOK)

    def _stand_in_line(self) -> None:
        """Connect to one of the brokers, and subscribe."""
        options = {
            "confirm_publish": True,
            "read_timeout": ANSWER,
            "write_timeout": ANSWER,
            "client_properties": {"connection_name": connection_name() or self.by},
        }
        connection = self.app.connection_for_write(
            heartbeat=HEARTBEAT, connect_timeout=CONNECT, transport_options=options
        )
        if connection.transport.driver_type != "amqp":
            raise PermanentError(f"a lease needs RabbitMQ, and the broker is {connection.transport.driver_type}")
        self.lease, self.connection = Lease(self.by), connection
        urls = max(1, len(connection.alt))
        connection.ensure_connection(max_retries=urls, interval_start=0, interval_step=0.2, interval_max=0.5)
        self.channel = connection.channel()
        self.channel.queue_declare(
            queue=self.queue,
            durable=True,
            exclusive=False,
            auto_delete=False,
            arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
        )
        self.channel.basic_qos(0, PREFETCH, False)
        self._publish(self.lease.seed())
        self.channel.basic_consume(queue=self.queue, consumer_tag=self.by, callback=self._received)
        self.renew_producer()

    # --- Leading

    def renew(self, runs: Runs) -> None:
        """Replace the token by one that tells of `runs`. Raises Lost where that can't be shown to have worked."""
        try:
            self._publish(self.lease.renewal(now(), runs))
            until = self.lease.sent + ANSWER
            while self.lease.pending is not None:
                if now() >= until:
                    raise Lost("the broker does not deliver the renewal")
                self._listen(until - now())
        except Exception as error:
            if self.is_broken(error) or is_nacked(error):
                raise Lost(f"the lease can't be renewed: {why_of(error)}") from error
            raise

    def refuse_to_send_late(self) -> None:
        """Raise Lost after the time for which the lease is certain."""
        if not self.lease.may_send(now()):
            raise Lost(f"the last confirmed renewal was sent {self.lease.age(now()):.1f} s ago")

    def renew_producer(self) -> None:
        """Send tasks on a channel of their own, a new one: an exchange that is not there costs no more than that."""
        self.producer = self.app.amqp.Producer(self.connection.channel(), auto_declare=False)

    def is_broken(self, error: BaseException | None) -> bool:
        """Whether the broker, or the way to it, is the cause of an error."""
        return caused_by(error, OSError, *(self.connection.connection_errors if self.connection is not None else ()))

    def close(self) -> None:
        """Leave the line, or hand the lease on."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.release()

    # --- The broker

    def _publish(self, token: Token) -> None:
        from kombu import Producer

        Producer(self.channel).publish(
            token.dump(), exchange="", routing_key=self.queue, content_type="application/json", content_encoding="utf-8"
        )

    def _received(self, raw: Any) -> None:
        for tag in self.lease.received(raw.delivery_tag, Token.load(raw.body)):
            self.channel.basic_ack(tag)

    def _listen(self, seconds: float) -> None:
        """Take what the broker sends within that time."""
        self.connection.heartbeat_check(rate=4)
        with contextlib.suppress(socket.timeout):
            self.connection.drain_events(timeout=max(0.01, seconds))


def is_nacked(error: BaseException) -> bool:
    """Whether the broker answered that it did not take a message."""
    from amqp.exceptions import MessageNacked

    return caused_by(error, MessageNacked)


def caused_by(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an error, or what it was raised for, is of one of these kinds."""
    return any(isinstance(one, kinds) for one in chain(error))


def why_of(error: BaseException) -> str:
    """Return what an error comes from, in words."""
    *_, first = chain(error)
    return "no answer in time" if isinstance(first, TimeoutError) else f"{type(first).__name__}: {first}".rstrip(": ")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised for, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
