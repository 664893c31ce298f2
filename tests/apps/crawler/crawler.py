"""Waits for many others at once: one process, five hundred green threads. It makes its own waits green, as many do."""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402

from celery import Celery  # noqa: E402

app = Celery("crawler")
app.config_from_object("celeryconfig")


@app.task(name="crawler.visit")
def visit(seconds: float) -> float:
    """Wait; return when it was done."""
    time.sleep(min(seconds, 30))
    return time.time()
