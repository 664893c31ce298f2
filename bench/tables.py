"""The form of every result of the bench: a row is ours beside its peer or limit, both measured in one run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `ours` and `peer` are medians in `unit`; the ratio is ours by peer. `at_most` or `at_least` is the ratio to reach.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_is: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        """Ours by peer."""
        return self.ours / self.peer

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is where it has to be; None where nothing is asked of it."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )


def write(name: str, rows: Sequence[Row], *, on: str, **more: Any) -> Path:
    """Write bench/results/<name>.json: the rows, the commit, and what they were measured on; returns its path.

    `on` says what else was there ("a Debian 12 container, control node on the same machine"); `more` are raw samples
    or series for a plot, under their own names.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
        "on": f"{on}; {os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
        "rows": [asdict(row) | {"ratio": round(row.ratio, 3), "reached": row.reached} for row in rows],
        **more,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def by_turns(times: int, *ways: Callable[[], float]) -> list[float]:
    """Measure each way `times` times, one after the other in turns, so that what the machine does else meets all.

    Returns the median of each.
    """
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(times):
        for values, way in zip(taken, ways, strict=True):
            values.append(way())
    return [statistics.median(values) for values in taken]


def _output(*command: str) -> str:
    """What the command printed, or nothing where it can't run (a tree without git)."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
