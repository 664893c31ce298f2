"""What is wrong with the entries of ``beat_schedule``: the scheduler would end at one, or send none of its tasks."""

import difflib
import inspect
import pickle
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery_ops.inspection.named import Refusal, load_class, why_not

if TYPE_CHECKING:
    from celery import Celery

SCHEDULERS = "celery.beat_schedulers"
"""The entry points by which packages give a scheduler a short name."""


def entries_of(app: "Celery") -> Mapping[Any, Any]:
    """Return the entries by name; none of a schedule that is no dict, which is refused by itself."""
    schedule = app.conf.beat_schedule
    return schedule if isinstance(schedule, Mapping) else {}


def unusable_schedule(app: "Celery", *_: Any) -> Iterator[Refusal]:
    """Refuse a timezone that is not known, and entries of the schedule at which every scheduler fails."""
    if why := why_not(lambda conf: app.timezone, app.conf):
        yield {
            "problem": f"timezone is {app.conf.timezone} ({why})",
            "write": "app.conf.timezone = 'UTC' (or another name of timedatectl list-timezones)",
        }
    schedule = app.conf.beat_schedule or {}
    if not isinstance(schedule, Mapping):
        yield {
            "problem": f"beat_schedule is a {type(schedule).__name__}, and has to be a dict",
            "write": "app.conf.beat_schedule = {'name of the entry': {'task': ..., 'schedule': ...}}",
        }
        return
    scheduler = scheduler_of(app)
    for name, entry in schedule.items():
        if found := wrong(entry, scheduler):
            problem, write = found
            yield {"problem": f"beat_schedule[{name!r}] {problem}", "write": write}


def wrong(entry: Any, scheduler: Any) -> tuple[str, str] | None:
    """Return what is wrong with an entry, and what to write; None where nothing is."""
    if why_not(dict, entry):
        return f"is a {type(entry).__name__}, and has to be a dict", "{'task': ..., 'schedule': ...}"
    fields = dict(entry)
    task, when = fields.get("task"), fields.get("schedule")
    arguments, keywords, options = (fields.get(key) or () for key in ("args", "kwargs", "options"))
    if not task:
        return "has no task", "'task': 'package.module.function'"
    if not isinstance(task, str):
        name = getattr(task, "name", "package.module.function")
        return f"has a {type(task).__name__} as its task, and has to have its name", f"'task': {name!r}"
    if not isinstance(when, (int, float, timedelta)) and not hasattr(when, "is_due"):
        return (
            f"has the schedule {when!r}, which is not a number of seconds, timedelta or schedule",
            "'schedule': 30.0 (seconds), or crontab(hour=4, minute=0)",
        )
    if isinstance(arguments, (str, bytes, Mapping)) or why_not(iter, arguments):
        return f"has a {type(arguments).__name__} as its args, and has to have a list", "'args': [...]"
    for key, value in (("kwargs", keywords), ("options", options)):
        if value and not isinstance(value, Mapping):
            return f"has a {type(value).__name__} as its {key}, and has to have a dict", f"'{key}': {{...: ...}}"
    return scheduler and (unknown_keys(fields, scheduler) or not_stored(fields, scheduler))


def scheduler_of(app: "Celery") -> Any:
    """Return the scheduler's class where its entries are Celery's own. One such as django-celery-beat's has others."""
    from celery.beat import ScheduleEntry, Scheduler

    try:
        scheduler = load_class(app.conf.beat_scheduler, SCHEDULERS)
    except Exception:  # refused by itself
        return Scheduler
    return scheduler if getattr(scheduler, "Entry", None) is ScheduleEntry else None


def unknown_keys(fields: dict[str, Any], scheduler: Any) -> tuple[str, str] | None:
    """Return the keys that Celery's schedulers end at."""
    known = inspect.signature(scheduler.Entry).parameters
    unknown = [str(key) for key in fields if key not in known]
    if not unknown:
        return None
    meant = ", ".join(f"{key!r}: ..." for key in unknown)
    return f"has the key {', '.join(unknown)}, which beat does not know", f"'options': {{{meant}}}, or leave it out"


def not_stored(fields: dict[str, Any], scheduler: Any) -> tuple[str, str] | None:
    """Return what of an entry can't be kept in beat's file: beat writes each entry there before it sends anything."""
    from celery.beat import PersistentScheduler

    if not issubclass(scheduler, PersistentScheduler):
        return None
    for key in ("schedule", "args", "kwargs", "options"):
        if why := why_not(pickle.dumps, fields.get(key)):
            return f"can't be kept in beat's file, because of its {key} ({why})", f"'{key}' without a lambda"
    return None


def doubtful_schedule(app: "Celery") -> Iterator[Refusal]:
    """Name the tasks of the schedule that the application does not have: a worker without them discards each."""
    for name, entry in entries_of(app).items():
        task = None if why_not(dict, entry) else dict(entry).get("task")
        if not isinstance(task, str) or task in app.tasks:
            continue
        near = difflib.get_close_matches(task, list(app.tasks), 1)
        yield {
            "problem": f"beat_schedule[{name!r}] sends the task {task}, which this application does not have: its "
            "workers discard it (those of another application may have it)",
            "write": f"'task': {near[0]!r}" if near else "the module that has it into app.conf.imports",
        }
