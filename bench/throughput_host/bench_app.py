"""The application of `bench/throughput.py`: with the kit's settings (BENCH_KIND=kit) or with Celery's defaults.

BENCH_CONF is a JSON object of settings that are set besides, BENCH_QUEUE the queue. Where BENCH_COUNT=1 the kit's
counters and heartbeat come along without its settings; where BENCH_SINGLE=1 it acknowledges each message by itself. A
worker writes the seconds that counting took into the file that BENCH_TIMED names.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, signals

app = Celery("bench")
if os.environ.get("BENCH_KIND") == "kit":
    app.config_from_object("celery_ops.settings")
if os.environ.get("BENCH_COUNT"):
    import celery_ops.arrays
    import celery_ops.tasks  # noqa: F401
if os.environ.get("BENCH_SINGLE"):
    from celery_ops.worker.acks import Acknowledgements

    Acknowledgements.add = lambda self, tag, multiple=False: self.acknowledge(tag, multiple=multiple)
if timed := os.environ.get("BENCH_TIMED"):
    from celery_ops.worker import counters

    spent, counting, clock = [0.0], counters.counting, time.perf_counter

    def time_of(call: Callable[..., Any]) -> Callable[..., Any]:
        """Add the time that each call takes, less what it takes to read the clock there and then."""

        def timed_call(*arguments: Any) -> Any:
            before, began = clock(), clock()
            try:
                return call(*arguments)
            finally:
                spent[0] += clock() - began - (began - before)

        return timed_call

    def timed_counting(of: counters.Counters, pool: Callable[..., Any], *more: Any) -> Callable[..., Any]:
        """Add the time from the worker's call until the pool's."""
        before = began = 0.0

        def give(*arguments: Any, **options: Any) -> Any:
            nonlocal before, began
            before, began = clock(), clock()
            return apply(*arguments, **options)

        def given(*arguments: Any, **options: Any) -> Any:
            spent[0] += clock() - began - (began - before)
            return pool(*arguments, **options)

        apply = counting(of, given, *more)
        return give

    counters.counting = timed_counting
    for where, name in ((counters.Run, "began"), (counters.Run, "ended"), (counters.Counters, "about")):
        setattr(where, name, time_of(getattr(where, name)))
    signals.worker_shutdown.connect(lambda **_: Path(timed).write_text(repr(spent[0])), weak=False)
# Celery kills a child that is not up within 4 s, and starts it anew: on a busy machine for ever.
app.conf.update(worker_proc_alive_timeout=60)
app.conf.update({"task_default_queue": os.environ["BENCH_QUEUE"], **json.loads(os.environ.get("BENCH_CONF") or "{}")})


@app.task
def noop(payload: str = "") -> None:
    """Do nothing."""


@app.task
def sleep(seconds: float, sent: float = 0.0) -> float:
    """Sleep, and return when it began minus when it was sent: seconds in the queue."""
    waited = time.time() - sent
    time.sleep(seconds)
    return waited


@app.task(ignore_result=True)
def mark(path: str) -> None:
    """Write the time into a file."""
    fresh = Path(path + ".new")
    fresh.write_text(repr(time.time()))
    fresh.replace(path)
