"""A message that is larger than RabbitMQ takes is refused by name before anything is sent.

Otherwise all of it is sent, and the broker closes the channel with an error that no caller expects.
"""

import os
from typing import Any

from kombu.exceptions import EncodeError
from kombu.transport import pyamqp

OF_RABBITMQ = ((4, 16 * 2**20), (0, 128 * 2**20))
"""RabbitMQ's max_message_size, where nobody sets it, in bytes, by its major version: since which, and how many."""


class MessageTooLarge(EncodeError):
    """More than the broker takes; the text says how much, and what to do. A task that publishes it fails with it."""


class Channel(pyamqp.Channel):
    """kombu's channel, which looks at the size of what it is to send."""

    def prepare_message(
        self,
        body: bytes | str,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """Return the message as kombu does; raise MessageTooLarge instead of sending what the broker refuses."""
        properties = getattr(self.connection, "server_properties", None) or {}
        most = limit(str(properties.get("product")), str(properties.get("version")))
        if most and 4 * len(body) > most and (size := len(body.encode() if isinstance(body, str) else body)) > most:
            task = (headers or {}).get("task")
            raise MessageTooLarge(
                f"{f'task {task}' if task else 'a message'} has {size} bytes, and the broker takes {most} at most; "
                "nothing was sent. Put the data where the task can read it (a file, the database), and pass its place. "
                "Where the broker's max_message_size is larger: CELERY_OPS_MAX_MESSAGE_BYTES in the environment"
            )
        return super().prepare_message(body, priority, content_type, content_encoding, headers, *arguments, **options)


def limit(product: str, version: str) -> int:
    """Return the bytes that a broker takes in one message; 0 where that is not known."""
    if own := os.environ.get("CELERY_OPS_MAX_MESSAGE_BYTES"):
        return int(own)
    major = version.partition(".")[0]
    if product != "RabbitMQ" or not major.isdigit():
        return 0
    return next(most for since, most in OF_RABBITMQ if int(major) >= since)


def connect() -> None:
    """Look at what this process's connections send."""
    pyamqp.Connection.Channel = Channel
