"""Entries of the beat schedule keep their options, whichever scheduler sends them.

django-celery-beat keeps an entry of the application's own schedule in a table that has no column for most options:
``expires`` and ``ignore_result`` are lost, and an entry that nobody fetched runs hours later. What the settings say is
put back when the entry is sent; what the table has for it, stays.

The last runs of Celery's own schedule are written as JSON beside its file, which another version of Python can't read:
after an upgrade of Python, and after a rollback to the one before, beat goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops.files import replace_text
from celery_ops.layout import TICK_ENTRY, TICK_INTERVAL
from celery_ops.lease.leave import leave

# Here, not where they are used: beat's handler of SIGTERM saves as well, maybe in the midst of such an import.
from celery_ops.lease.scheduler import apply_runs, run_of

if TYPE_CHECKING:
    from celery.beat import PersistentScheduler, ScheduleEntry, Scheduler, Service

    from celery_ops.lease.state import Runs


def connect() -> None:
    """Make the scheduler of this process send entries with all of their options, and keep their last runs."""
    from celery import signals

    @signals.beat_init.connect(weak=False)
    def in_scheduler(sender: Service, **_: Any) -> None:
        scheduler = sender.scheduler
        reserve, apply_async = scheduler.reserve, scheduler.apply_async

        def reserving(entry: ScheduleEntry) -> ScheduleEntry:
            return complete(reserve(entry), sender.app.conf.beat_schedule)

        def sending(entry: ScheduleEntry, *arguments: Any, **options: Any) -> Any:
            return apply_async(complete(entry, sender.app.conf.beat_schedule), *arguments, **options)

        scheduler.reserve, scheduler.apply_async = reserving, sending
        if filename := getattr(scheduler, "schedule_filename", ""):
            keep_last_runs(scheduler, last_runs_file(filename))
        if os.environ.get("CELERY_OPS_PROGRAM") and not hasattr(scheduler, "celery_ops_goes_on"):
            leave(scheduler)  # of several schedulers, there is no other one any more
        if filename:
            send_first_tick_at_once(scheduler)


def complete(entry: ScheduleEntry, schedule: dict[str, Any]) -> ScheduleEntry:
    """Give `entry` the options that the schedule in the settings has for it and the scheduler has lost."""
    written = schedule.get(entry.name) or {}
    for name, value in (written.get("options") or {}).items() if isinstance(written, dict) else ():
        if entry.options.get(name) is None:
            entry.options[name] = value
    return entry


def last_runs_file(schedule: str) -> Path:
    """Return where the last runs of a schedule are, whichever Python has its file."""
    path = Path(schedule)
    return path.with_name(f"{re.sub(r'-py[0-9.]+$', '', path.name)}.json")


def keep_last_runs(scheduler: PersistentScheduler, path: Path) -> None:
    """Make entries go on from the last runs in a file, and write them there whenever the schedule is saved."""
    # What the lease of several schedulers tells is newer.
    for name in [] if getattr(scheduler, "celery_ops_goes_on", False) else carry_over(scheduler, path):
        print(f"[celery-ops] {name}: its last run is known from {path}", flush=True)
    save = scheduler.sync

    def sync() -> None:
        save()
        with contextlib.suppress(ValueError):  # closed: as it ends, beat saves once more
            write_last_runs(scheduler, path)

    scheduler.sync = sync


def send_first_tick_at_once(scheduler: PersistentScheduler) -> None:
    """Make a tick due that has never been sent: who set the application up waits for it."""
    tick = scheduler.schedule.get(TICK_ENTRY)
    if tick is not None and not tick.total_run_count:
        tick.last_run_at -= timedelta(seconds=TICK_INTERVAL)


def carry_over(scheduler: Scheduler, path: Path) -> list[str]:
    """Make those entries go on from a file that have run more often by it; return their names."""
    try:
        runs = {name: (str(last), int(count)) for name, (last, count) in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        print(f"[celery-ops] the last runs in {path} can't be read, entries count from now on: {error}", flush=True)
        return []
    return go_on(scheduler, runs)


def go_on(scheduler: Scheduler, runs: Runs) -> list[str]:
    """Make those entries go on from `runs` that have run more often by them; return their names."""
    entries = scheduler.schedule
    later = {name: run for name, run in runs.items() if name in entries and run[1] > run_of(entries[name])[1]}
    apply_runs(scheduler, later)
    return sorted(later)


def write_last_runs(scheduler: Scheduler, path: Path) -> None:
    """Write the last runs of all entries; a full disk stops no schedule."""
    try:
        replace_text(path, json.dumps({name: run_of(entry) for name, entry in scheduler.schedule.items()}))
    except OSError as error:
        print(f"[celery-ops] the last runs can't be written: {error}", flush=True)
