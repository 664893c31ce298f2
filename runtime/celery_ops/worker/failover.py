"""A worker of a cluster comes back on another node at once, and no worker ends because its broker is away.

Where the broker has several URLs, Celery's worker (5.3 to 5.7) stands still after a node is gone: it begins with the
first URL again, sets up delayed delivery at every one of them with pauses between, and its control queue lives on one
node alone. Here each connection begins with a node that was there a moment ago.
"""

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer
    from kombu import Connection, Queue
    from kombu.pidbox import Mailbox

HEARTBEAT = 5
"""Seconds between heartbeats with a node of a cluster; a worker leaves a frozen one within four times that.

A node leaves a worker that sends none for twice that, and Celery's sends none while it sets up delayed delivery, 28
queues: with 4, a starved broker cut off its workers while they were connecting, again and again.
"""
AWAY = ("home node", "is down")
"""What the broker says of a queue whose node is not there; its name and its options are right."""


def connect() -> None:
    """Make a worker of this process outlive the loss of its broker, or of a node of it."""
    from celery import signals

    @signals.worker_init.connect(weak=False)
    def in_worker(sender: "WorkController", **_: Any) -> None:
        _add_step(sender)


def urls_of(app: "Celery") -> list[str]:
    """Return the URLs that a worker connects to, in their order."""
    given = app.conf.broker_read_url or ""
    return given.split(";") if isinstance(given, str) else list(given)


def _add_step(worker: "WorkController") -> None:
    from celery import bootsteps

    class Failover(bootsteps.StartStopStep):
        """Changes the consumer before it starts its first step."""

        def __init__(self, consumer: "Consumer", **options: Any) -> None:
            super().__init__(consumer, **options)
            outlive_the_broker(consumer)
            if len(urls := urls_of(consumer.app)) > 1:
                follow(consumer, Nodes(consumer.app, urls))

    worker.app.steps["consumer"].add(Failover)
    if len(urls_of(worker.app)) > 1:
        mailbox = worker.app.control.mailbox
        mailbox.get_queue = lambda hostname: control_queue(mailbox, hostname)


def outlive_the_broker(consumer: "Consumer") -> None:
    """Make the consumer connect again where Celery would end the worker, though it was only the broker that went."""
    from kombu.exceptions import OperationalError

    start = consumer.blueprint.start

    def started(parent: "Consumer") -> None:
        try:
            start(parent)
        except OperationalError as error:
            # Of a connection that was lost while it was being used for the first time: kombu tries for
            # broker_connection_timeout to have another, and then raises what Celery does not know as such an error.
            raise ConnectionResetError(f"the connection was lost: {error}") from error
        except consumer.channel_errors as error:
            if not is_away(error):
                raise
            raise ConnectionResetError(f"a node of the broker is away: {error}") from error

    consumer.blueprint.start = started


def is_away(error: Exception) -> bool:
    """Whether the broker refuses a queue because the node that has it is away; it will be back."""
    return getattr(error, "reply_code", 0) == 404 and any(words in str(error) for words in AWAY)


class Nodes:
    """The URLs of the broker's nodes; all connections of this process begin with the first."""

    def __init__(self, app: "Celery", urls: list[str]) -> None:
        self.app, self.urls = app, urls
        self.lost = False

    def begin_with(self, number: int) -> None:
        """Put this one first, and those before it last."""
        from celery_ops.worker.conf import put

        self.urls = self.urls[number:] + self.urls[:number]
        for name in ("broker_read_url", "broker_write_url"):
            put(self.app.conf, name, ";".join(self.urls))

    def connected_to(self, connection: "Connection") -> None:
        """Begin with the one that this connection was made to."""
        places = [place(self.app, url) for url in self.urls]
        here = (connection.hostname, connection.port)
        if here in places:
            self.begin_with(places.index(here))


def place(app: "Celery", url: str) -> tuple[str | None, int]:
    """Return host and port that a URL leads to, as a connection has them."""
    connection = app.connection_for_read(url)
    host = "127.0.0.1" if connection.hostname == "localhost" else connection.hostname
    return host, connection.port or connection.transport.default_connection_params["port"]


def follow(consumer: "Consumer", nodes: Nodes) -> None:
    """Make the consumer keep to the node it is connected to, and leave one that it has lost."""
    from celery.app.defaults import DEFAULTS

    connect = consumer.connect

    def connected() -> "Connection":
        if nodes.lost:
            nodes.begin_with(1)
            leave_events(consumer)
            forget_pools(consumer.app)
        nodes.lost = True
        connection = connect()
        nodes.connected_to(connection)
        for step in consumer.steps:
            if type(step).__name__ == "DelayedDelivery":
                step._validate_broker_urls = lambda _: {nodes.urls[0]}
        return connection

    consumer.connect = connected
    if consumer.amqheartbeat == DEFAULTS["broker_heartbeat"]:
        consumer.amqheartbeat = HEARTBEAT


def leave_events(consumer: "Consumer") -> None:
    """Drop the second connection, for events, too: Celery would take leave of a node that may not answer any more."""
    dispatcher = consumer.event_dispatcher
    if dispatcher and dispatcher.connection:
        with contextlib.suppress(Exception):
            dispatcher.connection.collect()


def forget_pools(app: "Celery") -> None:
    """Make new connections for what this process publishes: the main loop would wait for a frozen node with an answer.

    The old ones are not closed: that waits for the node, too, and a thread may be using one.
    """
    from kombu import pools

    pools.connections.clear()
    pools.producers.clear()
    app._pool = app.amqp._producer_pool = None
    app.control.mailbox.__dict__.pop("producer_pool", None)


def control_queue(mailbox: "Mailbox", hostname: str) -> "Queue":
    """Return the queue in which a worker of a cluster hears control commands: it goes with the connection.

    It has another name each time: a node that was cut off holds the old one for as long as it holds the connection.
    """
    from kombu import Queue

    return Queue(
        f"{hostname}.{uuid.uuid4().hex[:8]}.{mailbox.namespace}.pidbox",
        exchange=mailbox.exchange,
        durable=False,
        exclusive=True,
        auto_delete=True,
        message_ttl=mailbox.queue_ttl,
    )
