"""``celery-ops-soak``: publishes numbered tasks, collects what each host ran, reconciles both (`celery_ops.ledger`)."""

import argparse
import json
import signal
import sys
import threading
import time
from dataclasses import astuple
from functools import partial
from pathlib import Path

from celery_ops.ledger import RUN, Attempt, Executions, Monitor, Publisher, directory, reconcile, with_confirms
from celery_ops.probe import leave, load_app
from celery_ops.worker import routes

POLL = 0.5
"""Seconds between two reads of what was executed."""


def collect(run: str, expected: set[int], patience: float) -> str:
    """Return this host's lines of `run` once all of `expected` are done, or none was new for `patience` seconds.

    Without an expectation, as on a host that did not publish, it is the latter.
    """
    file, lines, quiet_since = directory() / run, "", time.monotonic()
    while time.monotonic() < quiet_since + patience:
        now = file.read_text(encoding="utf-8") if file.exists() else ""
        if now != lines:
            lines, quiet_since = now, time.monotonic()
            if expected and not expected - set(Executions.read(lines.splitlines()).done):
                break
        time.sleep(POLL)
    return lines


def main(argv: list[str] | None = None) -> None:
    """Publish, collect or reconcile."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-soak", description="Send numbered tasks; count what is lost or doubled."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    publish = verbs.add_parser("publish", help="publish numbered tasks; print what was confirmed")
    publish.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    publish.add_argument("--queue", required=True)
    publish.add_argument("--rate", type=float, default=20.0, help="tasks a second (20)")
    publish.add_argument("--duration", type=float, default=60.0, metavar="SECONDS", help="how long (60)")
    publish.add_argument("--tasks", type=int, default=10**9, help="end once this many are confirmed")
    publish.add_argument("--until", type=Path, metavar="FILE", help="end once this file is there")
    gather = verbs.add_parser("collect", help="print what this host executed")
    gather.add_argument(
        "--patience",
        type=float,
        default=200.0,
        metavar="SECONDS",
        help="give up after this without progress (200)",
    )
    balance = verbs.add_parser("reconcile", help="read what all hosts executed; count; exit 1 if one is lost")
    publish.add_argument("--run", default=time.strftime("run-%Y%m%d-%H%M%S"), help="name of the run (run-<time>)")
    for verb in (gather, balance):
        verb.add_argument("--run", required=True, help="name of the run")
    options = parser.parse_args(argv)
    if not RUN.fullmatch(options.run):
        parser.error(f"--run {options.run!r}: [A-Za-z0-9_-]")

    record = directory() / f"{options.run}.json"
    if options.verb == "publish":
        _publish(options, record)
        leave()
    published = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
    attempts = [Attempt(*attempt) for attempt in published["attempts"]] if published else []
    if options.verb == "collect":
        expected = {attempt.number for attempt in attempts if attempt.confirmed}
        sys.stdout.write(collect(options.run, expected, options.patience))
    elif published is None:
        sys.exit(f"{record} is missing: type celery-ops-soak publish --run {options.run} on this host first")
    else:
        counted = reconcile(attempts, Executions.read(sys.stdin), published["samples"])
        print(json.dumps(counted))
        sys.exit(1 if counted["lost"] else 0)


def _publish(options: argparse.Namespace, record: Path) -> None:
    app = load_app(options.app, results=True)
    routes.connect()
    monitor = Monitor(app.connection_for_write, options.queue)
    publisher = Publisher(app, partial(with_confirms, app), options.queue, options.run, options.rate)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    end = time.monotonic() + options.duration
    monitor.start()
    publisher.publish_until(
        lambda: (
            stopped.is_set()
            or time.monotonic() >= end
            or publisher.confirmed >= options.tasks
            or bool(options.until and options.until.exists())
        )
    )
    monitor.over.set()
    record.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    attempts = [astuple(attempt) for attempt in publisher.attempts]
    record.write_text(json.dumps({"attempts": attempts, "samples": monitor.samples}), encoding="utf-8")
    said = {
        "run": options.run,
        "attempted": len(attempts),
        "confirmed": publisher.confirmed,
        "failure": publisher.failure,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
