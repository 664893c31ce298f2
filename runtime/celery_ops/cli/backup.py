"""``celery-ops-backup``: writes the messages of queues into a file, and publishes them from one again; loses none.

RabbitMQ has no way to look at a message: a consumer takes it, and what it gives back counts as a delivery (after five
the task is dead-lettered) and comes back in another order (tried with 3.10). So all that is in the queues is taken and
written down; then a confirmed copy of each goes to the end of its queue, and only then is it acknowledged: in order,
with no delivery counted. Not one by one: the next message would be such a copy, where it has a high priority, where
workers empty the queue, or where it waits for its ETA in another of the delay queues now. Interrupted, one task may be
there twice, none is lost, and what was held comes back with one delivery counted. The dead queue has no limit: there
messages are given back.
"""

import argparse
import base64
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops.errors import TAKES_NOTHING, OperatorError
from celery_ops.layout import DEAD, DELAYED
from celery_ops.probe import Deadline, connected, leave, load_app, output_alone

if TYPE_CHECKING:
    from amqp import Channel, Message

PATIENCE = 30.0
"""Seconds that the broker may take for one answer."""
COUNTS = ("x-delivery-count", "x-acquired-count")
"""Headers that the broker counts by itself."""
BITS = 28
"""Levels of Celery's delay queues: each waits for a power of two of seconds."""
PREFIX = re.compile(rf"^(?:[01]\.){{{BITS}}}")
MAP, TIME, BYTES, DECIMAL = "$map", "$time", "$bytes", "$decimal"


def encode(value: Any) -> Any:
    """Return a value of a message's properties as JSON can hold it."""
    if isinstance(value, dict):
        return {MAP: {key: encode(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, datetime):
        return {TIME: value.replace(tzinfo=value.tzinfo or UTC).timestamp()}
    if isinstance(value, bytes):
        return {BYTES: base64.b64encode(value).decode()}
    return {DECIMAL: str(value)} if isinstance(value, Decimal) else value


def decode(value: Any) -> Any:
    """Return what `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, held)] = value.items()
    if kind == MAP:
        return {key: decode(item) for key, item in held.items()}
    if kind == TIME:
        return datetime.fromtimestamp(held, UTC).replace(tzinfo=None)
    return base64.b64decode(held) if kind == BYTES else Decimal(held)


def line_of(queue: str, message: "Message") -> str:
    """Return a message as a line of the file."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    about = {
        "queue": queue,
        "routing_key": message.delivery_info.get("routing_key", ""),
        "properties": encode(without_counts(message.properties)),
        "body": base64.b64encode(body).decode(),
    }
    return json.dumps(about)


def without_counts(properties: dict[str, Any]) -> dict[str, Any]:
    """Return properties without the headers that the broker counts."""
    headers = properties.get("application_headers")
    if not isinstance(headers, dict):
        return dict(properties)
    return {**properties, "application_headers": {key: headers[key] for key in headers if key not in COUNTS}}


def position(queue: str) -> tuple[int, str]:
    """Return a key that sorts queues as a task goes through them, so that one that moves meanwhile is seen."""
    return (-int(queue.rpartition("_")[2]) if re.fullmatch(DELAYED, queue) else 1), queue


def way_of(queue: str, routing_key: str, headers: dict[str, Any], now: float) -> tuple[str, str]:
    """Return exchange and routing key that bring a message into its queue again.

    One that waits for its ETA goes to the first of the delay queues, with the seconds that are left.
    """
    if not re.fullmatch(DELAYED, queue):
        return "", queue
    first, target = re.sub(r"\d+$", str(BITS - 1), queue), PREFIX.sub("", routing_key)
    try:
        eta = datetime.fromisoformat(str(headers["eta"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return queue, routing_key  # the exchange of its level has the queue's name
    left = max(0, int(eta.replace(tzinfo=eta.tzinfo or UTC).timestamp() - now))
    return first, ".".join(f"{min(left, 2**BITS - 1):0{BITS}b}") + f".{target}"


class Queues:
    """Queues, over one channel that confirms."""

    def __init__(self, channel: "Channel", user: str) -> None:
        self.channel, self.user = channel, user
        self.returned: list[str] = []
        channel.events["basic_return"].add(lambda error, *_: self.returned.append(str(error)))

    def count(self, queue: str) -> int:
        """Return the number of messages that nobody holds."""
        return self.channel.queue_declare(queue, passive=True).message_count

    def publish(self, line: str) -> str:
        """Publish the message of a line; return its queue once the broker has it. Raises OperatorError."""
        from amqp import Message

        about = json.loads(line)
        properties = decode(about["properties"])
        if properties.get("user_id", self.user) != self.user:
            del properties["user_id"]  # of another user, the broker would refuse it
        headers = properties.get("application_headers") or {}
        exchange, key = way_of(about["queue"], about["routing_key"], headers, time.time())
        self.returned.clear()
        try:
            self.channel.basic_publish_confirm(
                Message(base64.b64decode(about["body"]), **properties),
                exchange=exchange,
                routing_key=key,
                mandatory=True,
                timeout=PATIENCE,
            )
        except TimeoutError:
            raise OperatorError(f"the broker {TAKES_NOTHING}") from None
        if self.returned:
            raise OperatorError(f"there is no queue {about['queue']}. Type first: ansible-playbook playbooks/site.yml")
        return about["queue"]

    def taken(self, queue: str) -> Iterator[tuple[int, str]]:
        """Take the messages that are in a queue now; yield of each its delivery tag and its line."""
        for _ in range(self.count(queue)):
            message = self.channel.basic_get(queue, no_ack=False)
            if message is None:
                break
            yield message.delivery_tag, line_of(queue, message)

    def give_back(self, held: Iterable[tuple[str, int]], lines: Iterable[str]) -> None:
        """Put what was taken into its queues again: queue and delivery tag of each, and its line."""
        for (queue, tag), line in zip(held, lines, strict=True):
            if not queue.endswith(DEAD):
                self.publish(line)
                self.channel.basic_ack(tag)
        self.channel.basic_recover(requeue=True)


def main(argv: list[str] | None = None) -> None:
    """Read or write messages; print one line of JSON: how many of each queue."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-backup", description="Read the messages of queues, or write them."
    )
    parser.add_argument("action", choices=["read", "write"])
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--file", required=True, type=Path)
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="to reach the broker")
    parser.add_argument("queues", nargs="*")
    options = parser.parse_intermixed_args(argv)
    output = output_alone()
    done: Counter[str] = Counter()
    said = ""
    try:
        with connected(load_app(options.app), Deadline(options.timeout), {"reason": ""}) as connection:
            queues = Queues(connection.channel(), connection.userid or "")
            (_read if options.action == "read" else _write)(queues, options, done)
    except Exception as error:
        said = str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
    print(json.dumps({"queues": dict(done), "reason": said}), file=output, flush=True)
    leave(1 if said else 0)


def _read(queues: Queues, options: argparse.Namespace, done: Counter[str]) -> None:
    held: list[tuple[str, int]] = []
    # A file of this run alone: another one at the same time would change the lines of what is held here.
    options.file.unlink(missing_ok=True)
    with os.fdopen(os.open(options.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+") as file:
        for queue in sorted(options.queues, key=position):
            done[queue] = 0
            for tag, line in queues.taken(queue):
                file.write(f"{line}\n")
                held.append((queue, tag))
                done[queue] += 1
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        queues.give_back(held, file)


def _write(queues: Queues, options: argparse.Namespace, done: Counter[str]) -> None:
    with options.file.open() as file:
        for line in file:
            done[queues.publish(line)] += 1


if __name__ == "__main__":
    main()
