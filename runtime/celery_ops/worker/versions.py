"""The versions of Celery, kombu and redis-py that the kit works with, and what the older ones lack.

The one place for both: settings, refusals and docs are made from these tables. Nothing here imports Celery.
"""

import re
import sys
from importlib import metadata
from typing import NamedTuple

OLDEST = {"celery": (5, 3), "kombu": (5, 3), "redis": (4, 6)}
"""Older ones are refused. redis-py need not be there."""
BY_PYTHON = (((3, 12), "kombu", (5, 3, 3)), ((3, 13), "billiard", (4, 2, 1)))
"""What a Python needs beyond that: since which, the package, and its oldest version that runs there."""


class Lack(NamedTuple):
    """What a setting is for, and the Celery since which it exists."""

    since: tuple[int, int]
    loss: str
    write: str


_QUORUM = "celery>=5.6 in the requirements, or Queue(name, queue_arguments={'x-queue-type': 'quorum'}) in task_queues"
SETTINGS = {
    "task_default_queue_type": Lack(
        (5, 5),
        "quorum queues need Celery 5.5: queues are classic, no delivery limit holds, and a task that kills its worker "
        "process runs again and again",
        "celery>=5.6 in the requirements",
    ),
    "task_create_missing_queue_type": Lack(
        (5, 6), "queues other than the default one and those of task_queues are classic", _QUORUM
    ),
    "task_create_missing_queue_exchange_type": Lack(
        (5, 6), "queues other than the default one and those of task_queues have a direct exchange", _QUORUM
    ),
    **{
        name: Lack(
            (5, 6), "a RabbitMQ that denies transient queues refuses its control and event queues", "celery>=5.6"
        )
        for name in ("control_queue_exclusive", "control_queue_durable", "event_queue_exclusive")
    },
}
"""The kit's settings that not all supported versions of Celery know. Celery ignores an unknown one silently."""

QUORUM = (5, 5)
"""The Celery since which a worker can consume from quorum queues."""
ACKS_ON_FAILURE = (5, 7)
"""The Celery since which a failed task can be rejected without one that exceeded its time limit being requeued."""
TRANSIENT = "transient_nonexcl_queues"
"""RabbitMQ's name for queues that the control commands of Celery before 5.7 use. 4.3 can be told to deny them."""
REDIS_PROTOCOL = (5, 0)
"""The redis-py since which a connection takes `protocol`."""


def version(package: str) -> str:
    """Return the installed version of a package; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def installed(package: str) -> tuple[int, ...]:
    """Return the installed version as numbers, (5, 3, 6); empty where the package is not installed."""
    return numbers(version(package))


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (5, 6, 0) for "5.6.0rc1"."""
    return tuple(int(number) for number in re.match(r"[\d.]*", text)[0].split(".") if number)


def missing_settings() -> dict[str, Lack]:
    """Return the kit's settings that the installed Celery does not know."""
    return {name: lack for name, lack in SETTINGS.items() if installed("celery") < lack.since}


def redis_takes_protocol() -> bool:
    """Whether the installed redis-py can be told which protocol to speak."""
    return installed("redis") >= REDIS_PROTOCOL


def refused_by_broker(error: Exception) -> str:
    """Return what to do about the broker's refusal of this Celery's control queues; empty for any other error."""
    if TRANSIENT not in str(error):
        return ""
    return (
        f"the broker denies the transient queues of Celery {version('celery')}'s control commands "
        f"(deprecated_features.permit.{TRANSIENT} = false): use Celery 5.7, or 5.6 with celery_ops.apply(app)"
    )


def refused(python: tuple[int, ...] = sys.version_info[:2]) -> list[dict[str, str]]:
    """Return a refusal for each package that is too old: the problem and the line to write."""
    needs = [(package, oldest, f"the kit works with {package}") for package, oldest in OLDEST.items()]
    needs += [
        (package, oldest, f"Python {_text(python)} needs {package}")
        for since, package, oldest in BY_PYTHON
        if python >= since
    ]
    return [
        {
            "problem": f"{package} {version(package)} is too old: {why} {_text(oldest)} and newer",
            "write": f"{package}>={_text(oldest)} (in celery_app_requirements)",
        }
        for package, oldest, why in needs
        if installed(package) and installed(package) < oldest
    ]


def _text(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))
