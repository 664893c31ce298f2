"""Entries of the beat schedule keep their options, whichever scheduler sends them.

django-celery-beat keeps an entry of the application's own schedule in a table that has no column for most options:
``expires`` and ``ignore_result`` are lost, and an entry that nobody fetched runs hours later. What the settings say is
put back when the entry is sent; what the table has for it, stays.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.beat import ScheduleEntry, Service


def connect() -> None:
    """Make the scheduler of this process send entries with all of their options."""
    from celery import signals

    @signals.beat_init.connect(weak=False)
    def in_scheduler(sender: "Service", **_: Any) -> None:
        scheduler = sender.scheduler
        reserve, apply_async = scheduler.reserve, scheduler.apply_async

        def reserving(entry: "ScheduleEntry") -> "ScheduleEntry":
            return complete(reserve(entry), sender.app.conf.beat_schedule)

        def sending(entry: "ScheduleEntry", *arguments: Any, **options: Any) -> Any:
            return apply_async(complete(entry, sender.app.conf.beat_schedule), *arguments, **options)

        scheduler.reserve, scheduler.apply_async = reserving, sending


def complete(entry: "ScheduleEntry", schedule: dict[str, Any]) -> "ScheduleEntry":
    """Give `entry` the options that the schedule in the settings has for it and the scheduler has lost."""
    written = schedule.get(entry.name) or {}
    for name, value in (written.get("options") or {}).items() if isinstance(written, dict) else ():
        if entry.options.get(name) is None:
            entry.options[name] = value
    return entry
