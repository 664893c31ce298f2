"""Waits for many others at once: one process, five hundred green threads."""

import time

from celery import Celery

app = Celery("crawler")
app.config_from_object("celeryconfig")


@app.task(name="crawler.visit")
def visit(seconds: float) -> float:
    """Wait; return when it was done."""
    time.sleep(min(seconds, 30))
    return time.time()
