"""The last hour and the last day of queues and programs, in columns: what status, its page and the report read."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

SAMPLES = 360
NAMES = 100
"""Queues, and programs, that are kept at most."""
KINDS = {"queues": ("ready", "unacked", "consumers", "oldest", "rate"), "programs": ("active", "memory")}
"""The columns of each queue and of each program."""
DAY_EVERY, DAY_SAMPLES = 300.0, 288
"""Seconds between two samples of the day, and how many there are."""
DAY: dict[str, dict[str, tuple[str, Callable[[list[float]], float]]]] = {
    "queues": {
        **{"ready": ("ready", max), "unacked": ("unacked", max), "consumers": ("consumers", min)},
        **{"oldest": ("oldest", max), "rate": ("rate", fmean)},
    },
    "programs": {"active": ("active", fmean), "most": ("active", max), "memory": ("memory", max)},
}
"""The columns of the day: which of the hour's each is made of, and how."""


class Ring:
    """The last samples; every column is as long as `times`, with null where nothing was known."""

    def __init__(
        self, head: dict[str, Any], samples: int = SAMPLES, kinds: Mapping[str, Iterable[str]] = KINDS
    ) -> None:
        self.head, self.samples, self.kinds = head, samples, kinds
        self.times: list[float] = []
        self.of: dict[str, dict[str, dict[str, list[Any]]]] = {kind: {} for kind in kinds}

    def load(self, path: Path) -> None:
        """Go on where the file ends; one that is damaged, or of another form, is left out."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            times, of = found["times"], {kind: found[kind] for kind in self.kinds}
            columns = [
                of[kind][name][column] for kind, known in self.kinds.items() for name in of[kind] for column in known
            ]
            if found["format"] == self.head["format"] and all(len(column) == len(times) for column in columns):
                self.times, self.of = times, of
        except (OSError, ValueError, LookupError, TypeError):
            return

    def add(self, at: float, sample: dict[str, dict[str, dict[str, Any]]]) -> None:
        """Add a sample, ``{"queues": {name: {column: value}}, "programs": ...}``; forget what is too old."""
        oldest = at - self.samples * self.head["every"]
        # Also what lies in the future, if the clock was set back.
        keep = [number for number, time in enumerate(self.times) if oldest <= time < at][-(self.samples - 1) :]
        self.times = [*(self.times[number] for number in keep), at]
        for kind, columns in self.kinds.items():
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

    def condensed(self, since: float) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return the samples from `since` on as one of the day's."""
        begin = next((number for number, time in enumerate(self.times) if time >= since), len(self.times))
        known = lambda column: [value for value in column[begin:] if value is not None]  # noqa: E731
        return {
            kind: {
                name: {
                    to: round(reduce(values), 3) if (values := known(found[column])) else None
                    for to, (column, reduce) in columns.items()
                }
                for name, found in self.of[kind].items()
            }
            for kind, columns in DAY.items()
        }

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps({**self.head, "times": self.times, **self.of}, separators=(",", ":")) + "\n"
