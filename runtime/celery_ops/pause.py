"""What is paused on this host: the file that workers, scheduler, watchdog and commands agree on.

``/var/lib/<app>/pause.json`` is a list of entries, which docs/operations.md describes. It outlives restarts, deploys
and reboots; an entry whose time is over counts for nothing. Nothing here imports Celery.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery_ops.files import write_atomically
from celery_ops.launch.env import application_name
from celery_ops.layout import Layout, program_of

Entry = dict[str, Any]
"""what, name, since, until, who, why; `by` for those that a verb other than pause has made."""

QUEUE, PROGRAM, HOST, ALL, SCHEDULER, WEB = "queue", "program", "host", "all", "scheduler", "web"
KINDS = (QUEUE, PROGRAM, HOST, ALL, SCHEDULER, WEB)


def file(app: str = "") -> Path:
    """Return where the entries of an application are, by default of this process's."""
    state = os.environ.get("CELERY_OPS_STATE_DIR")
    return Path(state, "pause.json") if state else Layout(app or application_name("")).pause


def read(path: Path, now: float | None = None) -> list[Entry]:
    """Return the entries that are in force; none where the file is missing or is none of ours."""
    moment = time.time() if now is None else now
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = [one for one in found if one["what"] in KINDS and isinstance(one["name"], str)]
        return [one for one in entries if one.get("until") is None or one["until"] > moment]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the file in one step, so that no reader sees half of it. It is read after a loss of power, too.

    Raises OSError, and leaves all as it was.
    """
    write_atomically(path, json.dumps(list(entries), indent=1) + "\n")


def key(entry: Entry) -> tuple[str, str, str]:
    """Return what makes two entries the same: what is paused, and by which verb."""
    return entry["what"], entry["name"], entry.get("by", "")


def added(entries: Iterable[Entry], new: Iterable[Entry]) -> list[Entry]:
    """Return the entries with new ones; one that was there stays paused since then, with the new end and reason."""
    known = {key(one): one for one in entries}
    for one in new:
        known[key(one)] = {**one, "since": known.get(key(one), one)["since"]}
    return list(known.values())


def removed(entries: Iterable[Entry], which: Iterable[tuple[str, str]] = (), by: str = "") -> list[Entry]:
    """Return the entries without those of a verb that are named as (what, name); without all of it for no name."""
    named = set(which)
    return [one for one in entries if one.get("by", "") != by or (named and (one["what"], one["name"]) not in named)]


def paused_queues(entries: Iterable[Entry], program: str, queues: Iterable[str]) -> set[str]:
    """Return those of a program's queues that it must not consume from; `program` may be a generation's name."""
    entries, queues = list(entries), set(queues)
    if any(
        one["what"] in (HOST, ALL) or (one["what"], one["name"]) == (PROGRAM, program_of(program)) for one in entries
    ):
        return queues
    return {one["name"] for one in entries if one["what"] == QUEUE} & queues


def is_scheduler_held(entries: Iterable[Entry]) -> bool:
    """Whether the scheduler must send nothing."""
    return any(one["what"] == SCHEDULER for one in entries)


def is_web_closed(entries: Iterable[Entry], program: str) -> bool:
    """Whether a generation of the web program must not serve; one that came after a deploy's pause may."""
    return any(one["what"] == WEB and one["name"] in ("", program) for one in entries)
