"""``celery-ops-pause``: pauses and resumes on this host; tells what is paused, and what still runs.

It changes the file of `celery_ops.pause` and waits until the workers of this host heed it. No broker is asked.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from celery_ops import pause
from celery_ops.launch.env import application_name
from celery_ops.launch.process import Process, of_this_user
from celery_ops.layout import Layout, program_of
from celery_ops.pause import Entry
from celery_ops.worker.heartbeat import workers

DEPLOY = "deploy"
"""The verb whose pause leaves the programs alone that it brings."""
HEEDED = 20.0
"""Seconds for the workers to heed a change: they look every two, and write a heartbeat every five."""
POLL = 0.2


def main(argv: list[str] | None = None) -> NoReturn:
    """Do what is asked; print a line of JSON: the entries in force, and each worker."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-pause", description="Pause or resume on this host; print what is paused and what still runs."
    )
    parser.add_argument("what", choices=["show", "add", "remove", "wait"])
    parser.add_argument("entries", nargs="?", default="[]", help="a JSON list of entries; remove: {what, name} each")
    parser.add_argument("--by", default="", help="the verb that asks, where it is another one; remove: several")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="wait: for the tasks to end")
    options = parser.parse_args(argv)
    path, run = pause.file(), Layout(application_name("")).run
    try:
        before, after = change(path, options.what, json.loads(options.entries), options.by)
    except OSError as error:
        reason = f"{path} can't be written ({error.strerror}). Nothing was changed. Look: df -h {path.parent}"
        parser.exit(1, f"{parser.prog}: {reason}\n")
    changed = after != before
    if changed:
        close_web(after)
    for queue in unknown(after, workers(run)) if options.what == "add" else []:
        print(f"{parser.prog}: no worker of this host consumes from a queue {queue}", file=sys.stderr)
    late = await_heeded(run, after) if changed else []
    if options.what == "wait":
        late = await_idle(run, options.timeout)
    print(json.dumps({"changed": changed, "entries": after, "workers": workers(run), "late": late}))
    sys.exit(0)


def change(path: Path, what: str, given: list[Entry], by: str) -> tuple[list[Entry], list[Entry]]:
    """Add or remove entries, one command after the other; return those before and after. Raises OSError."""
    if what not in ("add", "remove"):
        return (entries := pause.read(path)), entries
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        after = before = pause.read(path)
        if what == "add":
            after = pause.added(before, made(given, by))
        else:
            for verb in by.split(","):
                after = pause.removed(after, [(one["what"], one["name"]) for one in given], verb)
        if after != before:
            pause.write(path, after)
    finally:
        os.close(directory)
    return before, after


def unknown(entries: list[Entry], found: list[dict[str, Any]]) -> list[str]:
    """Return the paused queues that no worker here consumes from, where workers say what they consume."""
    known = {queue for worker in found for queue in worker["queues"]}
    return [one["name"] for one in entries if known and one["what"] == pause.QUEUE and one["name"] not in known]


def web_programs() -> list[Process]:
    """Return the main processes of this application's web program; one that waits for the web to open is none."""
    app = application_name("")
    mains = [one for one in of_this_user() if one.identity and one.identity.app == app and one.is_main]
    return [one for one in mains if program_of(one.identity.program) == Layout(app).web]


def made(given: list[Entry], by: str) -> list[Entry]:
    """Return a verb's entries; a deploy's close the web programs that serve now, and not those that it brings."""
    webs = [one.identity.program for one in web_programs()] if by == DEPLOY else [""]
    entries = [one for one in given if one["what"] != pause.WEB]
    entries += [{**one, "name": name} for one in given if one["what"] == pause.WEB for name in webs]
    return [{**one, "by": by} for one in entries] if by else entries


def close_web(entries: list[Entry]) -> None:
    """Tell web programs that must not serve to finish; Supervisor starts them again, and the guard makes them wait."""
    for one in web_programs():
        if pause.is_web_closed(entries, one.identity.program):
            one.send(signal.SIGTERM)


def await_heeded(run: Path, entries: list[Entry]) -> list[str]:
    """Wait until all that is ready heeds the entries; return the names of the programs that don't in time."""
    deadline = time.monotonic() + HEEDED
    while True:
        late = [one["name"] for one in workers(run) if one["state"] == "ready" and not heeds(one, entries)]
        late += [one.identity.program for one in web_programs() if pause.is_web_closed(entries, one.identity.program)]
        if not late or time.monotonic() > deadline:
            return late
        time.sleep(POLL)


def await_idle(run: Path, timeout: float) -> list[str]:
    """Wait until no worker runs a task, those that drain included; return the names of those that still do."""
    begun = time.monotonic()
    while True:
        # As their heartbeats tell of a moment after this began.
        late = [one["name"] for one in workers(run) if one["active"] or one["beat"] < begun]
        if not late or time.monotonic() > begun + timeout:
            return late
        time.sleep(POLL)


def heeds(worker: dict[str, Any], entries: list[Entry]) -> bool:
    """Whether a worker has paused exactly what the entries say."""
    return pause.paused_queues(entries, worker["name"], worker["queues"]) == set(worker["paused"] or [])


if __name__ == "__main__":
    main()
