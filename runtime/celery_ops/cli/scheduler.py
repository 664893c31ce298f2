"""``celery-ops-scheduler``: beat as one of several schedulers, of which one leads (`celery_ops.lease`).

Takes the arguments of ``celery``: ``celery-ops-scheduler -A shop beat -l INFO``.
"""

import contextlib
import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    """Run beat under the lease."""
    arguments = sys.argv[1:] if argv is None else argv
    if path := os.environ.get("CELERY_OPS_HEARTBEAT_FILE"):
        # Of an earlier process: its being there says that this one stands by.
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
    from celery.__main__ import main as celery

    from celery_ops.lease import scheduler
    from celery_ops.worker import heartbeat, intake

    intake.connect()
    heartbeat.connect()
    scheduler.connect()
    sys.argv = ["celery", *arguments]
    celery()


if __name__ == "__main__":
    main()
