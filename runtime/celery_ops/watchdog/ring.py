"""The last hour of queues and programs, in columns: what status and its page draw."""

import json
from pathlib import Path
from typing import Any

SAMPLES = 360
NAMES = 100
"""Queues, and programs, that are kept at most."""
KINDS = {"queues": ("ready", "unacked", "consumers", "oldest", "rate"), "programs": ("active", "memory")}
"""The columns of each queue and of each program."""


class Ring:
    """Samples of the last hour; every column is as long as `times`, with null where nothing was known."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.times: list[float] = []
        self.of: dict[str, dict[str, dict[str, list[Any]]]] = {kind: {} for kind in KINDS}

    def load(self, path: Path) -> None:
        """Go on where the file ends; one that is damaged, or of another form, is left out."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            times, of = found["times"], {kind: found[kind] for kind in KINDS}
            columns = [of[kind][name][column] for kind, known in KINDS.items() for name in of[kind] for column in known]
            if found["format"] == self.head["format"] and all(len(column) == len(times) for column in columns):
                self.times, self.of = times, of
        except (OSError, ValueError, LookupError, TypeError):
            return

    def add(self, at: float, sample: dict[str, dict[str, dict[str, Any]]]) -> None:
        """Add a sample, ``{"queues": {name: {column: value}}, "programs": ...}``; forget what is older than an hour."""
        oldest = at - SAMPLES * self.head["every"]
        # Also what lies in the future, if the clock was set back.
        keep = [number for number, time in enumerate(self.times) if oldest <= time < at][-(SAMPLES - 1) :]
        self.times = [*(self.times[number] for number in keep), at]
        for kind, columns in KINDS.items():
            names = list(dict.fromkeys([*sample.get(kind, {}), *self.of[kind]]))[:NAMES]
            fresh = {}
            for name in names:
                now = sample.get(kind, {}).get(name, {})
                old = self.of[kind].get(name, {})
                fresh[name] = {
                    column: [*(old[column][number] if old else None for number in keep), now.get(column)]
                    for column in columns
                }
            self.of[kind] = {
                name: found
                for name, found in sorted(fresh.items())
                if any(value is not None for column in found.values() for value in column)
            }

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps({**self.head, "times": self.times, **self.of}, separators=(",", ":")) + "\n"
