"""Make the control command ``time_limit`` hold for messages that carry a limit of their own.

A sender with `task_time_limit`, as the kit's settings have it, writes the limit into each message, where Celery lets it
beat the one that an operator has just set.
"""

import os
from typing import Any

LIMITS: dict[str, tuple[float | None, float | None]] = {}
"""By task, the hard and the soft limit that this worker was told; a restart forgets them, as Celery does."""


def connect() -> None:
    """Make a worker of this process heed such limits, if the guard started it."""
    if not os.environ.get("CELERY_OPS_PROGRAM"):
        return
    from celery import signals

    signals.worker_init.connect(lambda **_: _listen(), weak=False)
    signals.task_received.connect(_limit, weak=False)


def _listen() -> None:
    from celery.worker.control import Panel

    command = Panel.data["time_limit"]

    def noting(state: Any, task_name: str | None = None, hard: Any = None, soft: Any = None, **options: Any) -> Any:
        answer = command(state, task_name=task_name, hard=hard, soft=soft, **options)
        if task_name in state.app.tasks:
            LIMITS[str(task_name)] = (hard, soft)
        return answer

    Panel.data["time_limit"] = noting


def _limit(request: Any, **_: Any) -> None:
    if (limits := LIMITS.get(request.task.name)) is not None:
        request.time_limits = limits
