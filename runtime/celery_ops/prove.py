"""Proves the whole path on the running system: a task there and back, and a tick that beat has sent."""

import argparse
import time
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops.probe import Clock, NotYet, answer, connected, load_app

if TYPE_CHECKING:
    from celery import Celery

FRESH = 60.0
"""Seconds a beat tick may be old; one is due every 15."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Prove that tasks come back and that ticks arrive (console script ``celery-ops-prove``)."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-prove",
        description="Send a task and get it back, and wait for a fresh tick; print one line of JSON; exit 0 or 1.",
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--no-scheduler", action="store_true", help="the application has no scheduler: no tick")
    options = parser.parse_args(argv)

    def probe(clock: Clock, found: dict[str, Any]) -> None:
        app = load_app(options.app)
        # An application that takes celery_ops.settings schedules the tick; of another's scheduler this can't tell.
        ticks = not options.no_scheduler and "celery-ops-tick" in app.conf.beat_schedule
        with connected(app, clock, found):
            pass
        found.update(_round_trip(app, clock))
        while ticks:
            try:
                found.update(_newest_tick(app))
                break
            except NotYet as why:
                found["reason"] = str(why)
                if not clock.left:
                    raise
                clock.pause(0.3)

    answer("proved", options.timeout, {"round_trip": None, "worker": None, "tick_age": None}, probe)


def _round_trip(app: "Celery", clock: Clock) -> dict[str, Any]:
    from celery.exceptions import TimeoutError

    started = time.monotonic()
    result = app.send_task("celery_ops.tick", expires=clock.left, ignore_result=False)
    try:
        moment = result.get(timeout=clock.left)
    except TimeoutError:
        raise NotYet(
            f"no result of celery_ops.tick from queue {app.conf.task_default_queue!r} within "
            f"{time.monotonic() - started:.0f} s (state {result.state}): no worker consumes from that queue, all are "
            "busy, or the result store does not work"
        ) from None
    result.forget()
    return {"round_trip": round(time.monotonic() - started, 3), "worker": moment["host"]}


def _newest_tick(app: "Celery") -> dict[str, Any]:
    from celery_ops.tasks import tick_id

    moment = app.AsyncResult(tick_id(app)).result
    if not isinstance(moment, dict) or "time" not in moment:
        raise NotYet(f"no beat tick has arrived yet ({tick_id(app)}): is the scheduler running?")
    age = time.time() - moment["time"]
    if age > FRESH:
        raise NotYet(f"the newest beat tick is {age:.0f} s old ({tick_id(app)}): is the scheduler running?")
    return {"tick_age": round(age, 1)}


if __name__ == "__main__":
    main()
