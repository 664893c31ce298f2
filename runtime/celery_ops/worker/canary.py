"""The canary: a task that a worker has to receive from the broker and to execute in its pool.

It uses nothing that the application's settings can change: not its queues, routes, exchanges, serializers or
annotations. Each worker that the guard started consumes from a queue of its own on a channel of its own: exclusive,
transient, without arguments and without acknowledgements. Nothing is ever sent on that channel that the broker could
answer by closing it or the worker's connection.
"""

import contextlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Task, shared_task

from celery_ops.files import replace_text
from celery_ops.layout import CANARY_QUEUE

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer
    from kombu import Connection

TASK = "celery_ops.canary"
COMMAND = "celery_ops_canary"
"""The control command that tells the name of a worker's canary queue."""


class OwnTask(Task):
    """Celery's own base for the kit's tasks: the application's ``task_cls`` and annotations are for its tasks."""

    abstract = True
    rate_limit = ""

    @classmethod
    def annotate(cls) -> None:
        """Leave the options as they are written."""


@shared_task(name=TASK, base=OwnTask, ignore_result=True, acks_late=False, serializer="json")
def canary(token: str) -> None:
    """Write `token` to this node's own canary file, which the guard named in CELERY_OPS_CANARY_FILE."""
    path = os.environ.get("CELERY_OPS_CANARY_FILE")
    if not path:
        raise RuntimeError("CELERY_OPS_CANARY_FILE is not set: this worker was not started by celery-ops-guard")
    replace_text(Path(path), str(token)[:200])


def connect() -> None:
    """Make a worker of this process consume from its canary queue, if the guard named a file for it."""
    if not os.environ.get("CELERY_OPS_CANARY_FILE"):
        return
    from celery import signals

    @signals.worker_init.connect(weak=False)
    def in_worker(sender: "WorkController", **_: Any) -> None:
        _add_step(sender)


def _add_step(worker: "WorkController") -> None:
    from celery import bootsteps
    from celery.worker.control import inspect_command

    class CanaryQueue(bootsteps.StartStopStep):
        """Consumes from the canary queue. The queue goes with the connection."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: "Consumer", **options: Any) -> None:
            super().__init__(consumer, **options)
            consumer.canary = {"queue": "", "reason": "it has not connected yet"}

        def start(self, consumer: "Consumer") -> None:
            consumer.canary = consume(consumer)

    worker.app.steps["consumer"].add(CanaryQueue)

    @inspect_command(name=COMMAND)
    def tell_queue(state: Any) -> dict[str, str]:
        """Tell the name of this node's canary queue, or why there is none."""
        return state.consumer.canary


def consume(consumer: "Consumer") -> dict[str, str]:
    """Declare the canary queue of this connection and consume from it; return its name, or the reason for none."""
    from celery.utils.log import get_logger
    from kombu.serialization import prepare_accept_content

    logger = get_logger(__name__)
    # Another name for each connection: after a cut of the network the broker keeps the old queue for a minute.
    name = f"{CANARY_QUEUE}.{consumer.hostname}.{uuid.uuid4().hex[:8]}"
    found = {"queue": name, "reason": ""}
    accepted = prepare_accept_content(consumer.app.conf.accept_content)
    handle, channel = consumer.create_task_handler(), consumer.connection.channel()

    def receive(raw: Any) -> None:
        message = channel.message_to_python(raw)
        message.channel, message.accept = _NoAnswer(), accepted
        try:
            handle(message)
        except Exception:
            logger.exception("The canary can't be handed to the pool")

    def cancelled(*_: Any) -> None:
        found.update(queue="", reason=f"the broker has deleted {name}; it comes again with the next connection")

    try:
        channel.queue_declare(queue=name, durable=False, exclusive=True, auto_delete=True)
        channel.basic_consume(queue=name, consumer_tag=name, no_ack=True, callback=receive, on_cancel=cancelled)
    except consumer.connection_errors:
        raise
    except Exception as error:
        found.update(queue="", reason=f"the broker refused {name}: {error}")
        logger.warning("No canary queue: %s", found["reason"])
        with contextlib.suppress(Exception):
            channel.close()
    return found


class _NoAnswer:
    """In place of a message's channel: what Celery acknowledges or rejects was acknowledged on delivery."""

    no_ack_consumers = None

    def basic_ack(self, *_: Any, **__: Any) -> None:
        """Send nothing."""

    basic_reject = basic_recover = basic_ack


def ask_queue(app: "Celery", connection: "Connection", node: str, timeout: float) -> dict[str, str]:
    """Return the answer of `node` to the question for its canary queue; {} where there is none."""
    replies = app.control.broadcast(
        COMMAND, destination=[node], connection=connection, reply=True, timeout=timeout, limit=1
    )
    return next((reply[node] for reply in replies or [] if "queue" in reply.get(node, ())), {})


def publish(app: "Celery", connection: "Connection", queue: str, token: str) -> None:
    """Put a canary with `token` into `queue`: straight in, in Celery's message protocol 2."""
    from kombu import Producer
    from kombu.serialization import registry

    task_id = str(uuid.uuid4())
    accepted = [registry.type_to_name.get(name, name) for name in app.conf.accept_content or ["json"]]
    with connection.channel() as channel:
        Producer(channel).publish(
            [[token], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
            exchange="",
            routing_key=queue,
            serializer="json" if "json" in accepted else accepted[0],
            delivery_mode="transient",
            correlation_id=task_id,
            headers={
                **{"lang": "py", "task": TASK, "id": task_id, "root_id": task_id, "parent_id": None, "group": None},
                **{"eta": None, "expires": None, "retries": 0, "timelimit": [None, None], "ignore_result": True},
            },
        )
