"""The part of celery-ops that travels with a release of an application.

An application needs one line of it: ``celery_ops.apply(app)``.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

__version__ = "0.2.0"


def apply(app: "Celery") -> None:
    """Give `app` the kit's settings where it has set none of its own (see `celery_ops.worker.defaults`)."""
    # Guard and listener import this package, and have no use for Celery.
    from celery_ops.worker import defaults

    defaults.apply(app)


def publish_many(signatures: "Iterable[Signature]", **options: Any) -> list[str]:
    """Publish many tasks, and return their ids when the broker has all of them (see `celery_ops.publish`)."""
    from celery_ops import publish

    return publish.publish_many(signatures, **options)


def read_here() -> dict[str, str]:
    """Return headers for `apply_async`: large arrays of the result may stay on this host (see `shared_memory`)."""
    from celery_ops import shared_memory

    return shared_memory.headers()
