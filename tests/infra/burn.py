"""An application whose tasks take their time, and whose worker can be made deaf. test_watchdog.py runs it."""

import time
from typing import Any

from celery import Celery
from celery.worker.control import control_command

app = Celery("burn")
app.config_from_object("celery_ops.settings")
app.conf.update(task_default_queue="burn", task_default_exchange="burn", task_default_routing_key="burn")


@app.task(name="burn.burn", ignore_result=True)
def burn(seconds: float, computing: bool) -> None:
    """Take that many seconds, with or without the processor."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not computing:
            time.sleep(0.1)


@control_command()
def deafen(state: Any) -> str:
    """End the consumers at the broker behind the worker's back."""
    consumer = state.consumer.task_consumer
    for tag in consumer._active_tags.values():
        consumer.channel.basic_cancel(tag)
    return "deaf"
