"""Keeps beat's schedule running when the system clock is set back.

Beat runs an entry when its interval has passed since `last_run_at`, in wall-clock time. Where the clock is set back, by
an operator or by NTP after a boot with a wrong one, that moment lies in the future, and the entry waits until the clock
has been there again: for an hour, or for a year; a restart does not help, as the moment is kept in the schedule's file.
(Celery 5.7, `celery.beat.Scheduler.tick` and `celery.schedules.schedule.is_due`.)
"""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery.beat import Scheduler, Service

TOLERANCE = timedelta(seconds=5)
"""An entry that ran so far in the future is left alone: that clock is being slewed."""


def connect() -> None:
    """Make the scheduler of this process check the clock before each of its ticks."""
    from celery import beat, signals

    @signals.beat_init.connect(weak=False)
    def in_scheduler(sender: "Service", **_: Any) -> None:
        scheduler = sender.scheduler
        if not isinstance(scheduler, beat.PersistentScheduler):
            return  # another's, which keeps its entries elsewhere
        tick = scheduler.tick

        def ticked(*arguments: Any, **options: Any) -> Any:
            put_right(scheduler)
            return tick(*arguments, **options)

        scheduler.tick = ticked


def put_right(scheduler: "Scheduler") -> list[str]:
    """Let entries that have run in the future have run just now; say so, and return their names."""
    from celery.utils.log import get_logger
    from celery.utils.time import maybe_make_aware

    names, most = [], TOLERANCE
    for name, entry in scheduler.schedule.items():
        now = entry.default_now()
        # A `nowfun` of the application may well return a time without a zone, as datetime.now does; and a schedule of a
        # class of its own may have `now` and `is_due` alone.
        ours = partial(maybe_make_aware, tz=scheduler.app.timezone)
        aware = getattr(entry.schedule, "maybe_make_aware", ours)
        ahead = aware(entry.last_run_at) - aware(now)
        if ahead > TOLERANCE:
            entry.last_run_at, most = now, max(most, ahead)
            names.append(name)
    if names:
        scheduler._heap = None  # made anew with the next tick
        get_logger("celery.beat").warning(
            "The clock was set back by %.0f s. Counting again from now: %s", most.total_seconds(), ", ".join(names)
        )
    return names
