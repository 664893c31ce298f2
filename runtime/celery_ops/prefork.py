"""A prefork pool whose children start at once: what is loaded before the first fork is no garbage, ever.

Celery collects garbage before each fork, and looks at every object of the application for it: 20 ms and more for a
child. Frozen objects are left out of that, and their memory stays shared with the children
(https://docs.python.org/3/library/gc.html#gc.freeze).
"""

import gc
from typing import Any

from celery import signals


def connect() -> None:
    """Have a worker of this process freeze what it has loaded, once, before its first child."""

    @signals.worker_before_create_process.connect(weak=False)
    def freeze(**_: Any) -> None:
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
