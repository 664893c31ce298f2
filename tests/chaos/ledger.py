#!/usr/bin/env python3
"""The ledger: numbered tasks published through trouble, then reconciled.

Run on a host under test, with the release's Python and the application's environment. It publishes with confirms at a
steady rate, samples the queue's consumers every 100 ms, waits until what was confirmed has been executed (or its
patience ends), and prints one JSON object: attempted, confirmed, executed, lost (confirmed, never executed), doubled,
samples without a consumer, and how long tasks waited in the queue, in seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from celery import Celery

SAMPLE = 0.1  # seconds
# Mostly short tasks, some long: drawn for every number from a fixed seed, so that runs can be compared.
DURATIONS = [0.0] * 60 + [0.05] * 25 + [0.5] * 10 + [3.0] * 5


class Monitor(threading.Thread):
    """Asks the broker every 100 ms how many consumers and waiting tasks the queue has."""

    def __init__(self, app: Celery, queue: str) -> None:
        super().__init__(daemon=True)
        self.app, self.queue = app, queue
        self.samples: list[tuple[float, int, int]] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until told to stop; a broker that is away is asked again, and is no sample."""
        while not self.over.is_set():
            try:
                with self.app.connection_for_write(connect_timeout=2) as connection, connection.channel() as channel:
                    while not self.over.wait(SAMPLE):
                        answer = channel.queue_declare(self.queue, passive=True)
                        self.samples.append((time.time(), answer.consumer_count, answer.message_count))
            except Exception:
                self.over.wait(SAMPLE)


class Ledger:
    """One run: what was attempted and confirmed here, what was executed there."""

    def __init__(self, app: Celery, queue: str, run: str, folder: Path) -> None:
        self.app, self.queue, self.run = app, queue, run
        self.path = folder / run
        self.attempted: dict[int, float] = {}
        self.confirmed: set[int] = set()

    def publish(self, number: int, seconds: float) -> None:
        """Publish one task; confirmed means that the broker said so."""
        self.attempted[number] = time.time()
        try:
            self.app.send_task("ledger.work", (self.run, number, seconds), queue=self.queue, retry=False)
        except Exception as error:
            print(f"task {number} was not confirmed: {error!r}", flush=True)
        else:
            self.confirmed.add(number)

    def executions(self) -> tuple[dict[int, float], Counter[int], Counter[str]]:
        """First begin of every number, how often each was done, and by which release."""
        began: dict[int, float] = {}
        done: Counter[int] = Counter()
        releases: Counter[str] = Counter()
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            number, what, at, release, _ = line.split()
            if what == "began":
                began.setdefault(int(number), float(at))
            else:
                done[int(number)] += 1
                releases[release] += 1
        return began, done, releases

    def reconcile(self, samples: list[tuple[float, int, int]]) -> dict[str, Any]:
        """The books: nothing confirmed may be missing."""
        began, done, releases = self.executions()
        waits = sorted(began[number] - sent for number, sent in self.attempted.items() if number in began)
        lost = sorted(self.confirmed - set(done))
        doubled = sorted(number for number, times in done.items() if times > 1)
        return {
            "attempted": len(self.attempted),
            "confirmed": len(self.confirmed),
            "executed": len(done),
            "lost": lost,
            "doubled": doubled,
            "releases": dict(releases),
            "samples": len(samples),
            "without_consumer": sum(1 for _, consumers, _ in samples if consumers == 0),
            "wait_p50": round(statistics.median(waits), 4) if waits else None,
            "wait_p99": round(waits[int(len(waits) * 0.99)], 4) if waits else None,
            "wait_max": round(waits[-1], 4) if waits else None,
        }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--run", required=True, help="name of this run's books")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=20.0, help="tasks a second")
    parser.add_argument("--until", type=Path, help="stop publishing once this file is there")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for the rest")
    options = parser.parse_args()

    app = Celery("ledger")
    app.config_from_object("celery_ops.settings")
    ledger, monitor = Ledger(app, options.queue, options.run, options.folder), Monitor(app, options.queue)
    monitor.start()
    durations = random.Random(options.run)
    begun = time.monotonic()
    for number in range(options.tasks):
        if options.until and options.until.exists():
            break
        time.sleep(max(0.0, begun + number / options.rate - time.monotonic()))
        ledger.publish(number, durations.choice(DURATIONS))
    deadline = time.monotonic() + options.patience
    while time.monotonic() < deadline and len(ledger.executions()[1]) < len(ledger.confirmed):
        time.sleep(SAMPLE)
    monitor.over.set()
    print(json.dumps(ledger.reconcile(monitor.samples)))


if __name__ == "__main__":
    main()
