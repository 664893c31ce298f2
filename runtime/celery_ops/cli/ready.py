"""Readiness is consumption: the node answers, consumes from each of its queues, and has run a canary itself.

The canary goes through a queue that belongs to the node alone (see `celery_ops.worker.canary`). A node whose slots are
all busy with tasks that its pool has accepted can't run a canary soon, and has shown what the canary would: that counts
as ready.
"""

import argparse
import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops import pause
from celery_ops.errors import PermanentError, RetryLater
from celery_ops.probe import Deadline, answer, load_app, while_connected
from celery_ops.worker import canary, versions

if TYPE_CHECKING:
    from celery import Celery
    from celery.app.control import Inspect
    from kombu import Connection

REPLY = 0.5
"""Seconds to wait for a reply to a control command before asking again."""
BUSY_AFTER = 2.0
"""Seconds without the canary after which to ask whether all slots are busy."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Wait until a node is ready."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-ready", description="Wait until a node consumes; print one line of JSON; exit 0 or 1."
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--node", required=True, help="the node's name, e.g. petct-worker-default-1a2b3c4d@host")
    parser.add_argument("--queues", default="", help="queues it must consume from, separated by commas")
    parser.add_argument("--canary-file", type=Path, help="the node's CELERY_OPS_CANARY_FILE; without: no canary")
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS")
    options = parser.parse_args(argv)

    def probe(clock: Deadline, found: dict[str, Any]) -> None:
        app = load_app(options.app)

        def ask(connection: "Connection") -> None:
            node = Node(app, connection, options.node)
            steps = [lambda: found.update(ping=node.ping())]
            if options.queues:
                steps.append(lambda: found.update(queues=node.consumes(options.queues.split(","))))
            if options.canary_file:
                steps.append(lambda: found.update(canary=node.run_canary(options.canary_file, clock)))
            try:
                for step in steps:
                    _insist(step, clock, found)
            except Exception as error:
                if why := versions.refused_by_broker(error):
                    raise PermanentError(why) from error
                raise

        while_connected(app, clock, found, ask)

    answer("ready", options.timeout, {"ping": False, "queues": [], "canary": None}, probe)


def _insist(step: Any, clock: Deadline, found: dict[str, Any]) -> None:
    """Repeat `step` while it raises RetryLater and there is time."""
    while True:
        try:
            return step()
        except RetryLater as why:
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
            raise RetryLater(f"{self.name} does not answer: not up yet, gone, or stuck; look at its log")
        return reply[self.name]

    def ping(self) -> bool:
        """Return True; raise RetryLater while there is no answer."""
        self._ask("ping")
        return True

    def consumes(self, wanted: list[str]) -> list[str]:
        """Return the queues it consumes from; raise RetryLater while one that is wanted is missing.

        A `Broadcast` is wanted by its alias, as `-Q` takes it: its queue has another name in each process.
        """
        consumed = sorted(queue.get("alias") or queue["name"] for queue in self._ask("active_queues"))
        paused = pause.paused_queues(pause.read(pause.file()), self.name.partition("@")[0], wanted)
        missing = sorted(set(wanted) - set(consumed) - paused)
        if missing:
            raise RetryLater(
                f"{self.name} does not consume from {', '.join(missing)} (but from {', '.join(consumed) or 'none'}); "
                "look at -Q on its command line"
            )
        return consumed

    def run_canary(self, file: Path, clock: Deadline) -> str:
        """Return "run", or "busy" where all slots are busy with accepted tasks; raise PermanentError otherwise."""
        token, queue = str(uuid.uuid4()), self._canary_queue()
        canary.publish(self.app, self.connection, queue, token)
        return self._await(token, file, clock)

    def _canary_queue(self) -> str:
        found = canary.ask_queue(self.app, self.connection, self.name, REPLY)
        if not found:
            raise RetryLater(f"{self.name} does not know of the canary: it lacks -I celery_ops.tasks, or is stuck")
        if not found["queue"]:
            raise RetryLater(f"{self.name} has no canary queue: {found['reason']}")
        return found["queue"]

    def _await(self, token: str, file: Path, clock: Deadline) -> str:
        ask_again = clock.left - BUSY_AFTER
        while clock.left:
            if file.exists() and file.read_text(encoding="utf-8") == token:
                return "run"
            if clock.left < ask_again:
                with contextlib.suppress(RetryLater):
                    if self._is_busy():
                        return "busy"
                ask_again = clock.left - BUSY_AFTER
            clock.pause(0.05)
        raise PermanentError(
            f"{self.name} did not run the canary task: its pool is stuck, it lacks -I celery_ops.tasks, "
            f"or it can't write {file}; look at its log"
        )

    def _is_busy(self) -> bool:
        stats = self._ask("stats")
        # With --autoscale the pool's own figure is the smallest that it had.
        slots = (stats.get("autoscaler") or {}).get("max") or stats.get("pool", {}).get("max-concurrency")
        accepted = [task for task in self._ask("active") if task.get("time_start")]
        return bool(slots) and len(accepted) >= slots


if __name__ == "__main__":
    main()
