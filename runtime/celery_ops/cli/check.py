"""``celery-ops-check``: checks the running system: a task's round trip, and a tick that beat has sent."""

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops import pause
from celery_ops.errors import RetryLater
from celery_ops.launch.env import RUNTIME, application_name
from celery_ops.layout import TICK_ENTRY, TICK_INTERVAL, Layout
from celery_ops.probe import Deadline, answer, connected, load_app
from celery_ops.worker.heartbeat import READY, workers

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

FRESH = 4.0 * TICK_INTERVAL
"""Seconds a beat tick may be old."""
BUSY_AFTER = 15.0
"""Seconds without the task's answer after which to ask whether the workers are busy; a third of a shorter time."""
REPLY = 1.0
"""Seconds to wait for the workers' replies to a control command; twice that where it is known who has to reply."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Check that tasks come back and that ticks arrive."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-check",
        description="Send a task and get it back, and wait for a fresh tick; print one line of JSON; exit 0 or 1.",
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--no-scheduler", action="store_true", help="the application has no scheduler: no tick")
    parser.add_argument("--scheduler", default="", metavar="CLASS", help="beat's, where its options name another")
    options = parser.parse_args(argv)

    def probe(clock: Deadline, found: dict[str, Any]) -> None:
        app = load_app(options.app, results=True)
        with connected(app, clock, found) as connection:
            RoundTrip(app, connection, clock, found, Layout(application_name("")).run).make()
        if found["busy"]:
            return
        if options.no_scheduler:
            found["tick"] = "no scheduler"
        elif why := _untold(app):
            found["tick"] = f"unknown: {why}"
        else:
            _await_tick(app, options.scheduler or app.conf.beat_scheduler, clock, found)

    found = {
        "release": RUNTIME.parent.name,
        "queue": None,
        "round_trip": None,
        "worker": None,
        "busy": "",
        "result": None,
        "tick": "",
        "tick_age": None,
    }
    answer("passed", options.timeout, found, probe)


class RoundTrip:
    """A task through a queue that a worker consumes, and its answer: over the broker, and by the result store."""

    def __init__(
        self, app: "Celery", connection: "Connection", clock: Deadline, found: dict[str, Any], run: Path
    ) -> None:
        self.app, self.connection, self.clock, self.found, self.run = app, connection, clock, found, run
        self.busy_after = min(BUSY_AFTER, clock.left / 3)
        self.sent = time.monotonic()

    def make(self) -> None:
        """Fill `found` in; raise RetryLater where nothing comes back and the workers are not busy."""
        from celery_ops.worker import echo, routes

        routes.connect()
        queues = self._consumed()
        if not queues and (why := _paused()):
            self.found["busy"] = why
            return
        queue = self._shortest(queues)
        nodes = queues.get(queue, [])
        begun = _begun(self._ask("stats", nodes)) if nodes else 0
        with echo.echo_queue(self.connection) as echoes:
            self.sent = time.monotonic()
            result = self._send(echo.TASK, echoes.queue, queue)
            self.found["queue"] = queue
            while (moment := echoes.take(min(0.5, self.clock.left))) is None:
                waited = time.monotonic() - self.sent
                self.found["reason"] = self._reason(queue, nodes, waited)
                if not self.clock.left:
                    raise RetryLater(self.found["reason"])
                if waited > self.busy_after and self._busy(queue, nodes, begun):
                    return
        self.found["worker"] = moment["host"]
        self.found["result"] = self._fetch(result)
        self.found["round_trip"] = round(time.monotonic() - self.sent, 3)

    def _ask(self, command: str, nodes: list[str] | None = None) -> dict[str, Any]:
        """Return the workers' replies by node."""
        who = {"destination": nodes, "limit": len(nodes), "timeout": 2 * REPLY} if nodes else {"timeout": REPLY}
        return getattr(self.app.control.inspect(connection=self.connection, **who), command)() or {}

    def _consumed(self) -> dict[str, list[str]]:
        """Return the nodes that consume from each queue; those of a worker that somebody started by hand count last.

        This host's are asked first: of them it is known who has to reply, and nothing waits for more.
        """
        here = [one["node"] for one in workers(self.run) if one["state"] == READY and one["node"]]
        nodes = (self._ask("active_queues", here) if here else {}) or self._ask("active_queues")
        ours = {node: queues for node, queues in nodes.items() if "-worker-" in node} or nodes
        found: dict[str, list[str]] = {}
        for node, queues in ours.items():
            for queue in queues:
                found.setdefault(queue["name"], []).append(node)
        return found

    def _shortest(self, queues: dict[str, list[str]]) -> str:
        """Return the queue with the fewest waiting tasks, of equals the application's default queue.

        Where no worker has told its queues: one of the application's that has a consumer, as the broker counts.
        """
        default = str(self.app.conf.task_default_queue)
        counts = {queue: self._count(queue) for queue in queues or self.app.amqp.queues.consume_from}
        chosen = {queue: waiting for queue, (waiting, consumers) in counts.items() if queues or consumers}
        return min(chosen, key=lambda name: (chosen[name], name != default, name), default=default)

    def _count(self, queue: str) -> tuple[int, int]:
        """Return how many tasks wait in a queue and how many consumers it has; none in one that is not there."""
        with contextlib.suppress(*self.connection.channel_errors), self.connection.channel() as channel:
            declared = channel.queue_declare(queue=queue, passive=True)
            return declared.message_count, declared.consumer_count
        return 0, 0

    def _send(self, task: str, answer_to: str, queue: str) -> Any:
        """Publish straight into a queue that is there: this declares nothing, whatever the application's queues are."""
        from kombu import Exchange, Queue

        return self.app.send_task(
            task,
            [answer_to],
            queue=Queue(queue, Exchange(""), routing_key=queue),
            exchange="",
            exchange_type="direct",
            routing_key=queue,
            declare=[],
            expires=self.clock.left + 1,
            ignore_result=False,
            connection=self.connection,
        )

    def _fetch(self, result: Any) -> str:
        """Return "kept" once the result store has given the result, "none" where the application has no store."""
        from celery.exceptions import TimeoutError

        if (why := _store(self.app)) == "none":
            return why
        try:
            result.get(timeout=self.clock.left)
        except TimeoutError:
            raise RetryLater(
                f"the task ran on {self.found['worker']}, and its result did not come within {self._waited()}: look "
                f"at the result store, {self.app.backend.as_uri()}"
            ) from None
        with contextlib.suppress(NotImplementedError):
            result.forget()
        return "kept"

    def _waited(self) -> str:
        return f"{time.monotonic() - self.sent:.0f} s"

    def _busy(self, queue: str, nodes: list[str], begun: int) -> bool:
        """Return whether the workers have other tasks: all slots are busy, or tasks wait and others were begun."""
        waiting, consumers = self._count(queue)
        if not nodes and consumers:
            self.found["busy"] = (
                f"{consumers} workers consume from queue {queue}, where {waiting} tasks wait, and answer nothing: with "
                "pool gevent, eventlet or solo they are silent while all slots are busy; for others see status.yml"
            )
        if not nodes:
            return bool(consumers)
        stats, active = self._ask("stats", nodes), self._ask("active", nodes)
        slots = sum(each.get("pool", {}).get("max-concurrency") or 1 for each in stats.values())
        busy = sum(bool(task.get("time_start")) for tasks in active.values() for task in tasks)
        more = _begun(stats) - begun
        if (stats and busy >= slots) or (waiting and more > 0):
            self.found["busy"] = (
                f"{waiting} tasks wait in queue {queue}, {busy} of {slots} slots are busy, "
                f"{max(more, 0)} tasks were begun in {self._waited()}"
            )
        return bool(self.found["busy"])

    def _reason(self, queue: str, nodes: list[str], waited: float) -> str:
        if not nodes:
            return (
                f"no answer from queue {queue!r} within {waited:.0f} s, and no worker answers the question what it "
                "consumes: none runs, or all are stuck; type: supervisorctl status"
            )
        return (
            f"no answer from queue {queue!r} within {waited:.0f} s: {', '.join(nodes)} consumes from it, has a "
            "free slot and runs nothing; look at its log"
        )


def _paused() -> str:
    """Return what is paused on this host; empty for nothing."""
    entries = [f"{one['what']} {one['name']}".strip() for one in pause.read(pause.file())]
    return f"paused: {', '.join(entries)}; no task was sent" if entries else ""


def _begun(stats: dict[str, Any]) -> int:
    """Return how many tasks nodes have begun since they started, without the kit's checks and ticks."""
    ours = {"celery_ops.canary", "celery_ops.echo", "celery_ops.tick"}
    totals = [each.get("total", {}) for each in stats.values()]
    return sum(count for total in totals for name, count in total.items() if name not in ours)


def _store(app: "Celery") -> str:
    """Return "none" where no results are kept, "own" where they come to the sender alone, "shared" otherwise."""
    from celery.backends.base import DisabledBackend
    from celery.backends.rpc import RPCBackend

    if isinstance(app.backend, DisabledBackend):
        return "none"
    return "own" if isinstance(app.backend, RPCBackend) else "shared"


def _untold(app: "Celery") -> str:
    """Return why nothing can be told of the scheduler; empty where its ticks are kept."""
    if TICK_ENTRY not in (app.conf.beat_schedule or {}):
        return "the tick is not in the beat schedule (the application does not take celery_ops.settings)"
    return "" if _store(app) == "shared" else "no result store keeps the tick"


def _await_tick(app: "Celery", scheduler: str, clock: Deadline, found: dict[str, Any]) -> None:
    """Wait for a fresh tick. One that doesn't come is a failure only of beat's own scheduler."""
    while True:
        try:
            found.update(_newest_tick(app), tick="fresh")
            return
        except RetryLater as why:
            found["reason"] = str(why)
            if not clock.left:
                if str(scheduler).endswith("PersistentScheduler"):
                    raise
                found["tick"] = f"unknown: {why} ({scheduler} may leave out what the settings schedule)"
                return
            clock.pause(0.3)


def _newest_tick(app: "Celery") -> dict[str, Any]:
    from celery_ops.tasks import tick_id

    moment = app.AsyncResult(tick_id(app)).result
    if not isinstance(moment, dict) or "time" not in moment:
        raise RetryLater(f"no beat tick has arrived yet ({tick_id(app)}): is the scheduler running?")
    age = time.time() - moment["time"]
    if age > FRESH:
        raise RetryLater(f"the newest beat tick is {age:.0f} s old ({tick_id(app)}): is the scheduler running?")
    return {"tick_age": round(age, 1)}


if __name__ == "__main__":
    main()
