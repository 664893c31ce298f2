"""The kit's own tasks: the canary proves that a node executes, the tick that the schedule arrives."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task, shared_task
from celery._state import _get_active_apps, connect_on_app_finalize
from celery.loaders.base import BaseLoader
from celery.signals import before_task_publish, import_modules
from celery.utils.log import get_task_logger

import celery_ops.ledger  # their tasks are the kit's, too
import celery_ops.worker.echo
from celery_ops.launch.env import application_name
from celery_ops.layout import TICK_ENTRY, TICK_INTERVAL
from celery_ops.worker import (
    acks,
    canary,
    clock,
    counters,
    failover,
    frames,
    heartbeat,
    intake,
    json_logs,
    limits,
    message_size,
    prefork,
    revoked,
    routes,
    schedule,
    store_away,
    storing,
    task_list,
    ticks,
)
from celery_ops.worker.canary import OwnTask
from celery_ops.worker.conf import declared_queues, put

TICKED = "TICKED"


def tick_id(app: Celery) -> str:
    """Return the fixed task id under which the newest beat tick of `app` is kept (see `tick`)."""
    return f"celery-ops-tick-{application_name(app.main)}"


@shared_task(name="celery_ops.tick", base=OwnTask, bind=True, acks_late=False)
def tick(self: Task) -> dict[str, Any]:
    """Return when and where it ran: ``{"time": seconds since the epoch, "host": name}``.

    Sent by beat (whose entry ignores the result) it is kept under one fixed id, in a state of its own: Celery
    never writes over a SUCCESS, and the newest tick has to replace the one before. Its own id is another each
    time, because a worker that drops an expired task goes on refusing the id.
    """
    moment = {"time": time.time(), "host": socket.gethostname()}
    if self.request.ignore_result:
        # While the store is away, ticks that wait for it would soon have all slots of the pool.
        store = getattr(self.backend, "hurried", self.backend)
        try:
            store.store_result(tick_id(self.app), moment, TICKED, request=self.request)
        except Exception as error:
            get_task_logger(__name__).warning("The tick can't be kept: %s", type(error).__name__)
    return moment


def add_tick(app: Celery, conf: Any = None) -> None:
    """Add the tick to the beat schedule of `app`, beside whatever the application schedules itself."""
    entry = {
        "task": "celery_ops.tick",
        "schedule": float(TICK_INTERVAL),
        "options": {"expires": 60, "ignore_result": True},
    }
    conf = app.conf if conf is None else conf
    # Read first: before that, it is only the promise of a configuration.
    schedule = conf.beat_schedule
    if not isinstance(schedule, Mapping):
        return  # celery-ops-inspect refuses it by name
    if queue := os.environ.get("CELERY_OPS_TICK_QUEUE") or consumed_instead(conf):
        entry["options"]["queue"] = queue
    # A new dict: Celery's default is one object shared by all apps.
    put(conf, "beat_schedule", {**schedule, TICK_ENTRY: entry})


def keep_tick(app: Celery) -> None:
    """Add the tick where `app` becomes final, and again when its own handlers, which may replace the schedule, ran."""
    add_tick(app)
    app.on_after_finalize.connect(lambda sender, **_: add_tick(sender), weak=False)


@import_modules.connect(weak=False)
def add_to_final(sender: Celery, **_: Any) -> None:
    """Add the tick to an application that was final early, by its own `app.tasks`, and has replaced the schedule."""
    if sender.finalized:
        add_tick(sender)


def consumed_instead(conf: Any) -> str:
    """Return the first of ``task_queues`` where the default queue is none of them: no worker consumes that one.

    A `Broadcast` counts for nothing: its queue has another name in each process.
    """
    queues = [queue for queue in declared_queues(conf) if not getattr(queue, "alias", None)]
    names = [str(queue if isinstance(queue, str) else queue.name) for queue in queues]
    return names[0] if names and conf.task_default_queue not in names else ""


before_task_publish.connect(celery_ops.worker.echo.leave_expiry_to_the_worker, sender="celery_ops.tick")
# By name: the module is loaded, and with it redis-py, where a result backend is used.
BaseLoader.override_backends.update(dict.fromkeys(("redis", "rediss"), "celery_ops.worker.results:RedisBackend"))
BaseLoader.override_backends["sentinel"] = "celery_ops.worker.results:SentinelBackend"
canary.connect()
intake.connect()  # before the heartbeat, so that a scheduler that is held writes one
heartbeat.connect()
json_logs.connect()
limits.connect()
message_size.connect()
frames.connect()
clock.connect()
counters.connect()
acks.connect()
prefork.connect()
failover.connect()
revoked.connect()
routes.connect()
store_away.connect()
storing.connect()
task_list.connect()
schedule.connect()
ticks.connect()
connect_on_app_finalize(keep_tick)
for _app in _get_active_apps():  # final already: `-I celery_ops.tasks`, or an app that used its tasks early
    if _app.finalized:
        # Its configuration may be being read right now (celery_ops.settings imports this) and replaced then.
        _app.on_after_configure.connect(lambda sender, source, **_: add_tick(sender, source), weak=False)
        if _app.configured:
            add_tick(_app)
