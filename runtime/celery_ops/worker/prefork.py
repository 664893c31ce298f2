"""A prefork pool whose children start at once, and may take their time where they have to.

Freezes loaded objects (gc.freeze) before the first fork. Celery collects garbage before each fork, and looks at every
object of the application for it: 20 ms and more for a child. Frozen objects are left out of that, and their memory
stays shared with the children (https://docs.python.org/3/library/gc.html#gc.freeze).

A child that is not up within `worker_proc_alive_timeout`, 4 s by default, is killed and started anew, for ever. It gets
as long as a worker may take to start (CELERY_OPS_START_TIMEOUT, which is celery_worker_ready_timeout).
"""

import gc
import os
from typing import Any

from celery import signals


def connect() -> None:
    """Make a worker of this process wait for its children, and freeze what it has loaded before the first, once."""

    @signals.worker_init.connect(weak=False)
    def wait_for_children(sender: Any, **_: Any) -> None:
        seconds = os.environ.get("CELERY_OPS_START_TIMEOUT", "")
        if seconds.isdigit():
            conf = sender.app.conf
            conf.worker_proc_alive_timeout = max(float(conf.worker_proc_alive_timeout or 0), float(seconds))

    @signals.worker_before_create_process.connect(weak=False)
    def freeze(**_: Any) -> None:
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
