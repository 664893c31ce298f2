"""From several schedulers back to one: it goes on where their lease ended.

Its own file is older where another host led. Once it has saved the last runs, the token goes: it would tell several
schedulers of later, or one on another host, of runs of long ago, which would all be due.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from celery_ops.launch.env import application_name
from celery_ops.lease.queue import ANSWER, CONNECT, LeaseQueue, why_of

if TYPE_CHECKING:
    from celery import Celery
    from celery.beat import Scheduler

PATIENCE = 10.0
"""Seconds that the broker has to hand the token over. It is with nobody: the others have stopped."""


def leave(scheduler: Scheduler) -> None:
    """Make a scheduler without the lease go on from what a lease of before tells. An error costs no more than that."""
    from celery_ops.worker.schedule import go_on

    app = scheduler.app
    if app.connection_for_write().transport.driver_type != "amqp":
        return
    queue = LeaseQueue(app, application_name(app.main), f"{os.environ['CELERY_OPS_PROGRAM']}@{socket.gethostname()}")
    deadline = time.monotonic() + PATIENCE

    def meanwhile(_: bool, why: str) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(why or "another scheduler holds it")

    try:
        if not is_there(app, queue.queue):
            return
        for name in go_on(scheduler, queue.await_turn(meanwhile)):
            print(f"[celery-ops] {name}: its last run is known from the lease of several schedulers", flush=True)
        scheduler.sync()
        for tag in queue.lease.held:
            queue.channel.basic_ack(tag)
    except Exception as error:
        print(f"[celery-ops] no last runs are known from a lease of several schedulers: {why_of(error)}", flush=True)
    finally:
        queue.close()


def is_there(app: Celery, name: str) -> bool:
    """Whether the broker has a queue of this name that this user may read."""
    from amqp.exceptions import AccessRefused, NotFound

    options = {"read_timeout": ANSWER, "write_timeout": ANSWER}
    with app.connection_for_write(connect_timeout=CONNECT, transport_options=options) as connection:
        urls = max(1, len(connection.alt))
        connection.ensure_connection(max_retries=urls, interval_start=0, interval_step=0.2, interval_max=0.5)
        try:
            connection.channel().queue_declare(name, passive=True)
        except (NotFound, AccessRefused):
            return False
    return True
