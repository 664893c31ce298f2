"""The part of celery-ops that travels with a release of an application.

An application needs one line of it: ``celery_ops.apply(app)``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

__version__ = "0.2.0"


def apply(app: "Celery") -> None:
    """Give `app` the kit's settings where it has set none of its own (see `celery_ops.worker.defaults`)."""
    # Guard and listener import this package, and have no use for Celery.
    from celery_ops.worker import defaults

    defaults.apply(app)
