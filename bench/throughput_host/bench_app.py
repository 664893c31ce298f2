"""The application of `bench/throughput.py`: with the kit's settings (BENCH_KIND=kit) or with Celery's defaults.

BENCH_CONF is a JSON object of settings that are set besides, BENCH_QUEUE the queue. Where BENCH_COUNT=1 the kit's
counters and heartbeat come along without its settings; where BENCH_SINGLE=1 it acknowledges each message by itself.
"""

import json
import os
import time
from pathlib import Path

from celery import Celery

app = Celery("bench")
if os.environ.get("BENCH_KIND") == "kit":
    app.config_from_object("celery_ops.settings")
if os.environ.get("BENCH_COUNT"):
    import celery_ops.arrays
    import celery_ops.tasks  # noqa: F401
if os.environ.get("BENCH_SINGLE"):
    from celery_ops.worker.acks import Acknowledgements

    Acknowledgements.add = lambda self, tag, multiple=False: self.acknowledge(tag, multiple=multiple)
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
