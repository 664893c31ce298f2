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

    spent = {1: 0.0, -1: 0.0}

    def time_of(call: Callable[..., Any], sign: int = 1) -> Callable[..., Any]:
        """Add, or take away, the time that each call takes."""

        def timed_call(*arguments: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments, **more)
            finally:
                spent[sign] += time.perf_counter() - began

        return timed_call

    counting = counters.counting
    counters.counting = lambda of, pool, queue_of: time_of(counting(of, time_of(pool, -1), queue_of))
    for where, name in ((counters.Run, "began"), (counters.Run, "ended"), (counters.Counters, "about")):
        setattr(where, name, time_of(getattr(where, name)))
    signals.worker_shutdown.connect(lambda **_: Path(timed).write_text(repr(spent[1] - spent[-1])), weak=False)
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
