"""Adds up what the processes of a worker's generations have counted, so that no count goes back when one of them ends.

Each process has a file of its own (`celery_ops.worker.counters`). What a process that is gone has counted becomes part
of its program's totals, which are kept in a file and so outlive the watchdog; then its file is removed.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery_ops.layout import COUNTERS, program_of

FILE = re.compile(r"(?P<name>.+)\.(?P<pid>\d+)-\d+" + re.escape(COUNTERS))
NEWEST = {"published", "tick", "time", "began", "pid"}
"""What is no count: of two, the newer one holds."""
SKEW = 60.0
"""Seconds by which a moment may lie in the future; what lies further was noted before the clock was set back."""


def add(one: Any, other: Any, key: str = "") -> Any:
    """Return two sets of counts as one."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return {key: add(one.get(key), other.get(key), key) for key in keys}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [a + b for a, b in zip(one, other, strict=True)]
    if one is None or other is None or type(one) is not type(other):
        return other if one is None else one
    return max(one, other) if key in NEWEST else one + other


class Totals:
    """What was counted: by the processes that are there, and by those of before."""

    def __init__(self, run: Path, kept: dict[str, Any]) -> None:
        self.run = run
        self.gone: dict[str, Any] = kept.get("gone", {})
        self.live: dict[str, dict[str, Any]] = kept.get("live", {})
        self.added: list[str] = kept.get("added", [])
        """Files whose counts are in `gone` already, and which may still be there."""

    def kept(self) -> dict[str, Any]:
        """Return what has to be kept: a file that was `added` may be removed once this is on the disk."""
        return {"gone": self.gone, "live": self.live, "added": self.added}

    def look(self, alive: Iterable[int]) -> None:
        """Read the files; what the processes that are not `alive` have counted is over."""
        alive = set(alive)
        there = {path.name: path for path in self.run.glob(f"*{COUNTERS}") if FILE.fullmatch(path.name)}
        self.added = [name for name in self.added if name in there]
        for name, path in there.items():
            if name not in self.added:
                with contextlib.suppress(OSError, ValueError):
                    self.live[name] = json.loads(path.read_text(encoding="utf-8"))
        for name in list(self.live):
            if name not in there or int(FILE.fullmatch(name)["pid"]) not in alive:
                program = program_of(FILE.fullmatch(name)["name"])
                self.gone[program] = add(self.gone.get(program), self.live.pop(name))
                self.added += [name] if name in there else []

    def tidy(self) -> None:
        """Remove the files whose counts are kept."""
        for name in self.added:
            (self.run / name).unlink(missing_ok=True)

    def of_programs(self) -> dict[str, dict[str, Any]]:
        """Return the counts of each program since the first of its generations, and what is held of each queue."""
        found: dict[str, Any] = dict(self.gone)
        for name, counts in self.live.items():
            program = program_of(FILE.fullmatch(name)["name"])
            found[program] = add(found.get(program), counts)
        return found

    def held(self) -> dict[str, int]:
        """Return by queue how many tasks the pools of this host have and have not finished."""
        found: dict[str, int] = {}
        for counts in self.live.values():
            for queue, of in counts.get("queues", {}).items():
                found[queue] = found.get(queue, 0) + of["delivered"] - of["finished"]
        return found

    def published(self) -> dict[str, float]:
        """Return by queue when the newest task that came from it was published; without those that can't be told."""
        found: dict[str, float] = {}
        for counts in [*self.gone.values(), *self.live.values()]:
            for queue, of in counts.get("queues", {}).items():
                found[queue] = max(found.get(queue, 0.0), _not_ahead(of["published"]))
        return {queue: when for queue, when in found.items() if when}

    def tick(self) -> float:
        """Return when a worker of this host last ran the scheduler's tick; 0 for never."""
        found = [*self.gone.values(), *self.live.values()]
        return max((_not_ahead(counts.get("tick", 0.0)) for counts in found), default=0.0)


def _not_ahead(moment: float) -> float:
    return moment if moment <= time.time() + SKEW else 0.0
