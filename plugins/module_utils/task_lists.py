"""The tasks that workers have, as their own files tell (`celery_ops.worker.task_list`). Standard library only, for the
runtime as well.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STALE = 15.0
"""Seconds after which a list says how old it is."""
KINDS = {"running": "RUNNING", "waiting": "WAITING in workers", "scheduled": "SCHEDULED in workers"}

TaskLists = list[dict[str, Any]]


@dataclass(frozen=True)
class Chosen:
    """Which tasks are meant; empty parts mean all."""

    name: str = ""
    program: str = ""
    id: str = ""
    """Of several, with commas between."""

    def takes(self, program: str, task: Mapping[str, Any]) -> bool:
        """Tell whether this task is meant."""
        return (
            (not self.name or fnmatch.fnmatch(task["name"], self.name))
            and (not self.program or fnmatch.fnmatch(program, self.program))
            and (not self.id or task["id"] in self.id.split(","))
        )


def read(app: str, run: Path, suffix: str, start_of: Callable[[int], int | None]) -> TaskLists:
    """Return the lists of all workers that run; `start_of` returns a pid's start time, or None."""
    found = []
    for path in sorted(run.glob(f"*{suffix}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            one = json.loads(path.read_text(encoding="utf-8"))
            if start_of(one["pid"]) == one["start"]:
                one["generation"] = str(one["program"])
                one["program"] = str(one["program"])[:-9].removeprefix(f"{app}-")
                found.append(one)
    return found


def lines(
    hosts: Mapping[str, TaskLists], chosen: Chosen, now: float, arguments: Mapping[str, str] | None = None
) -> list[str]:
    """Return what to show of the workers of several hosts: the oldest first."""
    text: list[str] = []
    for kind, title in KINDS.items():
        rows = [
            (task.get("since") or 0.0, host, one, task)
            for host, found in hosts.items()
            for one in found
            for task in one[kind]
            if chosen.takes(one["program"], task)
        ]
        text.append(f"{title}: {len(rows)}")
        for since, host, one, task in sorted(rows, key=lambda row: (row[0], row[3].get("eta") or "", row[3]["id"])):
            at = f"at {task['eta']}" if kind == "scheduled" else span(now - since)
            text.append(f"  {at:>7}  {task['name']}  {task['id']}  {host} {one['program']}  release {one['release']}")
            if arguments is not None:
                text.append(f"           {arguments.get(task['id'], 'arguments: the worker did not say')}")
    return text + notes(hosts, now)


def notes(hosts: Mapping[str, TaskLists], now: float) -> list[str]:
    """Return what to know of the lists themselves."""
    text = []
    for host, found in hosts.items():
        for one in found:
            if (age := now - one["time"]) > STALE:
                text.append(f"{host} {one['program']}: as of {span(age)} ago; its main loop is blocked or reconnecting")
            if one["left_out"]:
                text.append(f"{host} {one['program']}: {one['left_out']} more")
    return text


def ids(found: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the ids of all tasks in these lists."""
    return {task["id"] for one in found for kind in KINDS for task in one[kind]}


def span(seconds: float) -> str:
    """Return a time in the largest unit that fits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
