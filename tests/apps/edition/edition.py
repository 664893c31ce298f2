"""The smallest application that takes the kit's settings. Its requirements are a line of tests/matrix/versions.txt."""

import time

import celery_ops
from celery import Celery

app = Celery("edition")
celery_ops.apply(app)


@app.task
def add(a: int, b: int) -> int:
    """Their sum."""
    return a + b


@app.task
def nap(seconds: float) -> None:
    """Keep a slot busy."""
    time.sleep(seconds)
