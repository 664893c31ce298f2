"""What the watchdog has written of the last hour and of its counts, for the status."""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout

EVERY = 30
"""Seconds of one point: the file has one every ten."""
POINTS = 121
"""Of an hour."""
DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What comes of a file that is not as it should be."""
FRESH = 45.0
"""Seconds for which the last sample tells how it is now."""
QUEUES = 30
"""Queues that are returned, those with the most messages first."""
COLUMNS = ("ready", "unacked", "consumers", "oldest", "rate")
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def last_hour(layout: Layout) -> dict[str, Any]:
    """Return the last hour of the queues; empty where the watchdog writes none.

    `first` is the number of the first point since 1970, `queues` has by name a list of points for each column.
    """
    given = read_json(layout.hour)
    with suppress(*DAMAGED):
        return hour_of(given["times"], given["queues"])
    return {}


def hour_of(times: list[float], queues: dict[str, dict[str, list[float | None]]]) -> dict[str, Any]:
    """Return samples as points of half a minute: the most of each, and of rates the mean.

    The application can write the file: what is no number counts as unknown, and what is older than an hour is left out.
    """
    if not times:
        return {}
    slots = [int(at // EVERY) for at in times]
    first, last = max(min(slots), max(slots) - POINTS + 1), max(slots)
    fullest = sorted(queues, key=lambda name: -max(filter(_is_number, queues[name]["ready"]), default=0))
    points: dict[str, dict[str, list[float | None]]] = {}
    for name in fullest[:QUEUES]:
        points[name] = {}
        for column in COLUMNS:
            of: list[list[float]] = [[] for _ in range(first, last + 1)]
            for slot, value in zip(slots, queues[name][column], strict=True):
                if slot >= first and _is_number(value):
                    of[slot - first].append(value)
            points[name][column] = [_point(one, is_rate=column == "rate") for one in of]
    return {"every": EVERY, "first": first, "queues": points}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _point(values: list[float], *, is_rate: bool) -> float | None:
    return None if not values else round(sum(values) / len(values), 3) if is_rate else max(values)


def now_of(layout: Layout) -> dict[str, dict[str, float]]:
    """Return the age of the oldest task and the rate of each queue now; empty where the watchdog is silent."""
    given = read_json(layout.hour)
    with suppress(*DAMAGED):
        if time.time() - given["times"][-1] < FRESH:
            return {
                name: {key: of[key][-1] for key in ("oldest", "rate") if _is_number(of[key][-1])}
                for name, of in given["queues"].items()
            }
    return {}


def samples(layout: Layout) -> list[tuple[str, dict[str, str], float]]:
    """Return the watchdog's metrics: name, labels, value; empty where it writes none."""
    found = []
    with suppress(OSError):
        for name, labels, value in SAMPLE.findall(layout.prom.read_text(errors="replace")):
            with suppress(ValueError):
                found.append((name, dict(LABEL.findall(labels)), float(value)))
    return found
