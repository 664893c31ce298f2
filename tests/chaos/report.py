#!/usr/bin/env python3
"""Write docs/reliability.md from the results of `make chaos`: tests/chaos/report.py [RESULTS.jsonl]."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Reliability

Written by `tests/chaos/report.py` from the results of `make chaos`; every number was measured. Under a steady load of
numbered tasks (most short, some of 0.5 and 3 s, of each twenty one with a countdown, one that is retried, one whose
result is kept) one thing is broken, and nobody helps. Afterwards there has to be exactly one set of workers, one
scheduler and one web program, of the right release, in the promised time.

- **lost**: the broker had confirmed the task, and it was never finished.
- **doubled**: finished twice. Delivery is *at least once*: what was running when a worker or its connection ended is
  run again. Where a "-" stands, none may be, and none was.
- **run again**: begun, ended by force, begun again and finished once.
- **kept**: runs in which every promise was kept, of how many.
- **recovery**: seconds from the end of the fault until all is as before and every task begins within a second of its
  publishing, what had piled up meanwhile included; the longest of all runs, and what is promised.

What a fault means: "network cut" drops every packet between the host's own programs and its broker, while tasks still
come in; a memory limit is tried as the kernel would enforce it, by SIGKILL of the process with the highest oom_score;
the scheduler's clock is set by libfaketime, as no container has its own, and it has to tick while that is wrong, too.
One host is a whole system here; of several, tests/fleet switches one off under load.

A task with a countdown that falls due in the moment when RabbitMQ restarts may come three minutes late: so long does
RabbitMQ wait before it tries a delayed message's way again.
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


def kept(run: dict[str, Any]) -> bool:
    """Tells whether a run kept every promise."""
    whole = "failed" not in run and run["lost"] == 0 and run["recovery"] <= run["promise"]
    return whole and (run["doubled"] == 0 or bool(run["doubles"]))


def page(results: list[dict[str, Any]]) -> str:
    """The page: a table for each set of versions."""
    systems: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        versions = tuple(result[name] for name in ("debian", "rabbitmq", "celery", "supervisor"))
        systems[versions][result["fault"]].append(result)
    text = f"{HEAD}\nMeasured in containers, load and hosts (up to three at once) on one machine of {CORES} cores.\n"
    for (debian, rabbitmq, celery, supervisor), faults in sorted(systems.items()):
        text += f"\n## Debian {debian}, RabbitMQ {rabbitmq}, Celery {celery}, Supervisor {supervisor}\n\n"
        text += f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
        text += "".join(row(fault, runs) for fault, runs in faults.items())
    return text


def main() -> None:
    """Entry point."""
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".cache/chaos/results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    (ROOT / "docs/reliability.md").write_text(page(rows))


if __name__ == "__main__":
    main()
