"""One thread at a time writes to a connection with the broker.

Before 5.4.2, py-amqp puts what several threads send at once into one buffer (its issue 462). A worker with a pool of
threads or greenlets acknowledges from all of them: of 160,000 acknowledgements by eight threads 1,766 were another's
instead. So tasks run twice, and the broker closes the channel for what it was told twice.
"""

import threading
from collections.abc import Callable
from typing import Any

import amqp
from kombu.transport import pyamqp

from celery_ops.worker import versions

FIXED = (5, 4, 2)
"""The py-amqp that needs no help."""


def connect() -> None:
    """Make the connections of this process write one frame at a time."""
    if versions.installed("amqp") < FIXED:
        pyamqp.Connection.frame_writer = amqp.Connection.frame_writer.setter(_keep)


def _keep(connection: amqp.Connection, write: Callable[..., Any]) -> None:
    """Keep what writes the frames of a new connection, behind a lock."""
    lock = threading.Lock()  # made here, as gevent or eventlet may have replaced it by now

    def locked(*frame: Any) -> None:
        with lock:
            write(*frame)

    amqp.Connection.frame_writer.fset(connection, locked)
