"""JSON logs by one setting (CELERY_OPS_LOG_FORMAT=json): a line is an object with the task that wrote it.

Only what Celery itself has set up is written so. An application that configures its logging, by the signal
`setup_logging`, by handlers of its own or by `worker_log_format`, keeps what it has.
"""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from celery_ops.launch.env import RUNTIME

FORMATS = ("log_format", "task_log_format")


def connect() -> None:
    """Write JSON in this process, if that is asked for."""
    if os.environ.get("CELERY_OPS_LOG_FORMAT") != "json":
        return
    from celery import signals

    replaced: list[logging.Logger] = []

    def root(logger: logging.Logger, **_: Any) -> None:
        if is_default_format() and replace(logger):
            replaced.append(logger)

    def tasks(logger: logging.Logger, **_: Any) -> None:
        # Celery adds its own handler for tasks also beside an application's own root handlers.
        if replaced:
            replace(logger)

    signals.after_setup_logger.connect(root, weak=False)
    signals.after_setup_task_logger.connect(tasks, weak=False)


def is_default_format() -> bool:
    """Whether the application has no log format of its own."""
    from celery import current_app
    from celery.app.defaults import NAMESPACES

    return all(current_app.conf.get(f"worker_{name}") == NAMESPACES["worker"][name].default for name in FORMATS)


def replace(logger: logging.Logger) -> bool:
    """Give Celery's own handlers the formatter; tell whether there were any."""
    from celery.utils.log import ColorFormatter

    own = [handler for handler in logger.handlers if isinstance(handler.formatter, ColorFormatter)]
    for handler in own:
        handler.setFormatter(Formatter())
    return bool(own)


class Formatter(logging.Formatter):
    """A line of JSON: time, level, logger, process, message; task, task_id and root_id where a task is known."""

    def __init__(self) -> None:
        super().__init__()
        self.program = os.environ.get("CELERY_OPS_PROGRAM", "")
        self.release = RUNTIME.parent.name

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
            **task_of(record),
            "program": self.program,
            "release": self.release,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False, default=str)


def task_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the task that a line is about: the one that runs here, or that Celery says something of."""
    from celery._state import get_current_task

    task = get_current_task()
    request = getattr(task, "request", None)
    if request is not None and request.id:
        return {"task": task.name, "task_id": request.id, "root_id": request.root_id or request.id}
    data = getattr(record, "data", None)
    if isinstance(data, dict) and data.get("id"):
        return {"task": str(data.get("name", "")), "task_id": str(data["id"])}
    return {}
