"""``celery-ops-pause``: pauses and resumes on this host; tells what is paused, and what still runs.

It changes the file of `celery_ops.pause` and waits until the workers of this host heed it. No broker is asked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from celery_ops import pause
from celery_ops.launch.env import application_name
from celery_ops.layout import HEARTBEAT, Layout, program_of
from celery_ops.pause import Entry
from celery_ops.watchdog.watchdog import read as heartbeat_of

HEEDED = 20.0
"""Seconds for the workers to heed a change: they look every two, and write a heartbeat every five."""
POLL = 0.2


def main(argv: list[str] | None = None) -> NoReturn:
    """Do what is asked; print a line of JSON: the entries in force, and each worker."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-pause", description="Pause or resume on this host; print what is paused and what still runs."
    )
    parser.add_argument("what", choices=["show", "add", "remove"])
    parser.add_argument("entries", nargs="?", default="[]", help="a JSON list of entries; remove: {what, name} each")
    parser.add_argument("--by", default="", help="the verb that asks, where it is another one")
    options = parser.parse_args(argv)
    path, run = pause.file(), Layout(application_name("")).run
    before = pause.read(path)
    after, given = before, json.loads(options.entries)
    if options.what == "add":
        after = pause.added(before, [{**one, "by": options.by} if options.by else one for one in given])
    elif options.what == "remove":
        after = pause.removed(before, [(one["what"], one["name"]) for one in given], options.by)
    changed = after != before
    if changed:
        pause.write(path, after)
    late = await_heeded(run, after) if changed else []
    print(json.dumps({"changed": changed, "entries": after, "workers": workers(run), "late": late}))
    sys.exit(0)


def workers(run: Path) -> list[dict[str, Any]]:
    """Return the workers of this host as their heartbeats tell: queues, what is paused, what runs and since when."""
    found = []
    for path in sorted(run.glob(f"*{HEARTBEAT}")):
        beat = heartbeat_of(path)
        if beat.get("kind") == "worker" and Path(f"/proc/{beat['pid']}").exists():
            name = path.name.removesuffix(HEARTBEAT)
            keys = ("state", "paused", "active", "oldest", "time")
            found.append({"name": name, "program": program_of(name), **{key: beat.get(key) for key in keys}})
            found[-1]["queues"] = sorted({*beat.get("queues", {}), *(beat.get("paused") or [])})
    return found


def await_heeded(run: Path, entries: list[Entry]) -> list[str]:
    """Wait until each worker that is ready heeds the entries; return the names of those that don't in time."""
    deadline = time.monotonic() + HEEDED
    while True:
        late = [one["name"] for one in workers(run) if one["state"] == "ready" and not heeds(one, entries)]
        if not late or time.monotonic() > deadline:
            return late
        time.sleep(POLL)


def heeds(worker: dict[str, Any], entries: list[Entry]) -> bool:
    """Whether a worker has paused exactly what the entries say."""
    return pause.paused_queues(entries, worker["name"], worker["queues"]) == set(worker["paused"] or [])


if __name__ == "__main__":
    main()
