"""An application whose tasks compute without a pause, and whose worker can be made deaf. test_watchdog.py runs it."""

import time
from typing import Any

from celery import Celery
from celery.worker.control import control_command

app = Celery("burn")
app.config_from_object("celery_ops.settings")
app.conf.update(task_default_queue="burn", task_default_exchange="burn", task_default_routing_key="burn")


@app.task(name="burn.burn", ignore_result=True)
def burn(seconds: float) -> None:
    """Compute until that many seconds have passed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@control_command()
def deafen(state: Any) -> str:
    """End the consumers at the broker behind the worker's back."""
    consumer = state.consumer.task_consumer
    for tag in consumer._active_tags.values():
        consumer.channel.basic_cancel(tag)
    return "deaf"
