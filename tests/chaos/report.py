#!/usr/bin/env python3
"""Write docs/reliability.md from the results of `make chaos`: tests/chaos/report.py [RESULTS.jsonl]."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Reliability

Written by `tests/chaos/report.py` from the results of `make chaos`; every number was measured. Each run injects one
fault under a steady load of numbered tasks (most are short, some take 0.5 or 3 s; of twenty, one has a countdown, one
is retried, one returns a result). The system has to recover by itself: exactly one set of workers, one scheduler and
one web program, of the right release, in the promised time.

- **lost**: the broker had confirmed the task, and it was never finished.
- **doubled**: finished twice. Delivery is *at least once*: a task that was running when its worker or connection ended
  runs again. Where the table has "-", none is allowed, and there was none.
- **run again**: started, ended by force, started again and finished once.
- **kept**: runs in which every promise was kept, of all runs.
- **recovery**: seconds from the end of the fault until the system is as before and every task starts within a second of
  its publishing, the backlog included; the longest of all runs, and the promise.

About the faults: "network cut" drops every packet between the host's own programs and its broker, while tasks still
arrive; a memory limit is simulated as the kernel enforces it, by SIGKILL of the process with the highest oom_score; the
scheduler's clock is set with libfaketime, as a container has no clock of its own, and it has to tick while its clock is
wrong. One host is a whole system here; tests/fleet switches one of several hosts off under load.

A task with a countdown that is due at the moment when RabbitMQ restarts may come three minutes late: RabbitMQ waits
that long before it delivers a delayed message again.
"""
CLUSTER = """
## A cluster of three, Debian {debian}, RabbitMQ {rabbitmq}, Celery {celery}

By tests/fleet under a steady load: faults of the node that a worker is connected to, and a restart of node after node.

- **p99 of a confirm**: within that time 99 of 100 publishes were confirmed: the median of the runs, and the worst.
- **without a confirm**: likewise, the longest time in which no publish was confirmed.
- **without a task begun**: likewise.

A publish of a task whose result is kept also asks the result store, which is away with its host: Celery subscribes to
the result first.

| fault | runs | tasks | lost | doubled | p99 of a confirm | without a confirm | without a task begun |
|---|---|---|---|---|---|---|---|
"""
CORES = os.cpu_count()
COLUMNS = ("fault", "kept", "tasks", "lost", "doubled", "run again", "recovery", "promised")


def row(fault: str, runs: list[dict[str, Any]]) -> str:
    """A fault's line: sums over its runs, and the longest recovery."""
    done = [run for run in runs if "failed" not in run]
    total = {name: sum(run[name] for run in done) for name in ("confirmed", "lost", "doubled", "rerun")}
    doubled = str(total["doubled"]) if runs[0]["doubles"] or total["doubled"] else "-"
    recovery = max((run["recovery"] for run in done), default=float("nan"))
    cells = (
        fault,
        f"{sum(map(kept, runs))} of {len(runs)}",
        f"{total['confirmed']:,}",
        total["lost"],
        doubled,
        total["rerun"],
        f"{recovery:.1f} s",
        f"{runs[0]['promise']:g} s",
    )
    return f"| {' | '.join(map(str, cells))} |\n"


def cluster_row(fault: str, runs: list[dict[str, Any]]) -> str:
    """A fault's line in the table of a cluster."""
    total = {name: sum(run[name] for run in runs) for name in ("confirmed", "lost", "doubled")}
    times = [sorted(run[name] for run in runs) for name in ("confirm_p99", "stall", "standstill")]
    spans = [f"{statistics.median(each):.3g} s, {each[-1]:.3g} s" for each in times]
    cells = (fault, len(runs), *(f"{total[name]:,.0f}" for name in total), *spans)
    return f"| {' | '.join(map(str, cells))} |\n"


def kept(run: dict[str, Any]) -> bool:
    """Tells whether a run kept every promise."""
    whole = "failed" not in run and run["lost"] == 0 and run["recovery"] <= run["promise"]
    return whole and (run["doubled"] == 0 or bool(run["doubles"]))


def page(results: list[dict[str, Any]]) -> str:
    """The page: a table for each set of versions."""
    systems: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    clusters: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        versions = tuple(result[name] for name in ("debian", "rabbitmq", "celery", "supervisor"))
        of_kind = clusters if "stall" in result else systems
        of_kind[versions][result["fault"]].append(result)
    text = f"{HEAD}\nMeasured in containers, load and hosts (up to three at once) on one machine of {CORES} cores.\n"
    for (debian, rabbitmq, celery, supervisor), faults in sorted(systems.items()):
        text += f"\n## Debian {debian}, RabbitMQ {rabbitmq}, Celery {celery}, Supervisor {supervisor}\n\n"
        text += f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        text += "".join(row(fault, runs) for fault, runs in faults.items())
    for (debian, rabbitmq, celery, _), faults in sorted(clusters.items()):
        text += CLUSTER.format(debian=debian, rabbitmq=rabbitmq, celery=celery)
        text += "".join(cluster_row(fault, runs) for fault, runs in faults.items())
    return text


def main() -> None:
    """Entry point."""
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".cache/chaos/results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    (ROOT / "docs/reliability.md").write_text(page(rows))


if __name__ == "__main__":
    main()
