"""Readiness is consumption: the node answers, consumes from each of its queues, and has run a canary itself.

For the canary the node is told to consume from a queue of its own, ``celery-ops.canary.<node>``, in which one
message is put; afterwards consumer and queue are taken away again. A node all of whose slots are busy with tasks
that its pool has accepted can't run a canary soon, and has shown what the canary would: that counts as ready.
"""

import argparse
import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops.probe import Clock, Hopeless, NotYet, answer, connected, load_app

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.control import Inspect
    from kombu import Connection, Queue

REPLY = 0.5
"""Seconds to wait for a reply to a control command before asking again."""
BUSY_AFTER = 2.0
"""Seconds without the canary after which to ask whether all slots are busy."""
QUEUE_EXPIRES = 60.0
"""Seconds after which the broker drops an unused canary queue, should this program be killed."""

CONSUMER_GONE = 3.0
"""Seconds for the node to let go of the canary queue."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Wait until a node is ready (console script ``celery-ops-ready``)."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-ready", description="Wait until a node consumes; print one line of JSON; exit 0 or 1."
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--node", required=True, help="the node's name, e.g. petct-worker-default-1a2b3c4d@host")
    parser.add_argument("--queues", default="", help="queues it must consume from, separated by commas")
    parser.add_argument("--canary-file", type=Path, help="the node's CELERY_OPS_CANARY_FILE; without: no canary")
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS")
    options = parser.parse_args(argv)

    def probe(clock: Clock, found: dict[str, Any]) -> None:
        app = load_app(options.app)
        with connected(app, clock, found) as connection:
            node = Node(app, connection, options.node)
            steps = [lambda: found.update(ping=node.ping())]
            if options.queues:
                steps.append(lambda: found.update(queues=node.consumes(options.queues.split(","))))
            if options.canary_file:
                steps.append(lambda: found.update(canary=node.run_canary(options.canary_file, clock)))
            for step in steps:
                _insist(step, clock, found)

    answer("ready", options.timeout, {"ping": False, "queues": [], "canary": None}, probe)


def _insist(step: Any, clock: Clock, found: dict[str, Any]) -> None:
    """Repeat `step` while it raises NotYet and there is time."""
    while True:
        try:
            return step()
        except NotYet as why:
            found["reason"] = str(why)
            if not clock.left:
                raise
            clock.pause(0.1)


class Node:
    """One worker node, asked over one connection."""

    def __init__(self, app: "Celery", connection: "Connection", name: str) -> None:
        self.app, self.connection, self.name = app, connection, name

    def _ask(self, command: str) -> Any:
        inspect: Inspect = self.app.control.inspect(
            destination=[self.name], timeout=REPLY, connection=self.connection, limit=1
        )
        reply = getattr(inspect, command)() or {}
        if self.name not in reply:
            raise NotYet(f"{self.name} does not answer: not up yet, gone, or stuck; look at its log")
        return reply[self.name]

    def ping(self) -> bool:
        """Return True; raise NotYet while there is no answer."""
        self._ask("ping")
        return True

    def consumes(self, wanted: list[str]) -> list[str]:
        """Return the queues it consumes from; raise NotYet while one that is wanted is missing."""
        consumed = sorted(queue["name"] for queue in self._ask("active_queues"))
        missing = sorted(set(wanted) - set(consumed))
        if missing:
            raise NotYet(
                f"{self.name} does not consume from {', '.join(missing)} (but from {', '.join(consumed) or 'none'}); "
                "look at -Q on its command line"
            )
        return consumed

    def run_canary(self, file: Path, clock: Clock) -> str:
        """Return "run", or "busy" where all slots are busy with accepted tasks; raise Hopeless otherwise."""
        token, queue = str(uuid.uuid4()), self._canary_queue()
        try:
            self.app.control.add_consumer(
                queue.name,
                exchange_type=queue.exchange.type,
                options={"durable": True, "expires": QUEUE_EXPIRES, "queue_arguments": queue.queue_arguments},
                destination=[self.name],
                connection=self.connection,
                exchange=queue.exchange.name,
                routing_key=queue.routing_key,
            )
            self.app.send_task(
                "celery_ops.canary",
                [token],
                queue=queue,
                expires=QUEUE_EXPIRES,
                ignore_result=True,
                connection=self.connection,
                # Straight into the queue: node and probe bind it at the same moment, and on RabbitMQ 4 a topic
                # exchange may not route yet for the second of them; a confirm says nothing of that.
                exchange="",
                exchange_type="direct",
                declare=[queue],
            )
            return self._await(token, file, clock)
        finally:
            with contextlib.suppress(Exception):
                self._take_away(queue)

    def _canary_queue(self) -> "Queue":
        from kombu import Queue

        # A classic queue: it lives for seconds, and a quorum queue takes longer to make than to use.
        return Queue(
            f"celery-ops.canary.{self.name}",
            exchange=self.app.amqp.default_queue.exchange,
            routing_key=f"celery-ops.canary.{self.name}",
            expires=QUEUE_EXPIRES,
            queue_arguments={"x-queue-type": "classic"},
        )

    def _await(self, token: str, file: Path, clock: Clock) -> str:
        ask_again = clock.left - BUSY_AFTER
        while clock.left:
            if file.exists() and file.read_text(encoding="utf-8") == token:
                return "run"
            if clock.left < ask_again:
                with contextlib.suppress(NotYet):
                    if self._is_busy():
                        return "busy"
                ask_again = clock.left - BUSY_AFTER
            clock.pause(0.05)
        raise Hopeless(
            f"{self.name} did not run the canary task: its pool is stuck, it lacks -I celery_ops.tasks, "
            f"or it can't write {file}; look at its log"
        )

    def _is_busy(self) -> bool:
        slots = self._ask("stats").get("pool", {}).get("max-concurrency")
        accepted = [task for task in self._ask("active") if task.get("time_start")]
        return bool(slots) and len(accepted) >= slots

    def _take_away(self, queue: "Queue") -> None:
        """End the canary's consumer, then delete its queue; in the other order the node loses its connection."""
        clock = Clock(CONSUMER_GONE)
        self.app.control.cancel_consumer(queue.name, destination=[self.name], connection=self.connection)
        while clock.left:
            with contextlib.suppress(NotYet):
                if queue.name not in [found["name"] for found in self._ask("active_queues")]:
                    queue(self.connection.default_channel).delete(if_unused=True)
                    return
            clock.pause(0.05)


if __name__ == "__main__":
    main()
