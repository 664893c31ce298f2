"""The version of the web's listener: the same on the control node, which has its source, and in a release's wheel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

LISTENER = ("celery_ops/__init__.py", "celery_ops/listener.py", "celery_ops/process.py")
"""What the listener runs, of the runtime: while that is the same, no deploy touches it."""


def listener_version(read: Callable[[str], bytes]) -> str:
    """Return the hash of what the listener runs; `read` returns a file of the runtime."""
    return hashlib.sha256(b"".join(hashlib.sha256(read(name)).digest() for name in LISTENER)).hexdigest()[:12]
