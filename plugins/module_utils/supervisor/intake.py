"""Hold a worker's intake for a moment: it takes nothing more, keeps its process, and can go on at once.

A file beside its heartbeat says from when to when, in seconds of the monotonic clock: one that nobody removes counts
for nothing soon, and after a reboot. The worker looks at it and writes a heartbeat
(runtime/celery_ops/worker/intake.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import HEARTBEAT, HOLD

AT_MOST = 180.0
"""Seconds after which what is held goes on by itself, beyond those that the new ones are observed."""


def hold(directory: Path, names: Iterable[str], observed: float = 0.0) -> float:
    """Hold programs whose run directory that is; return since when. Raises OSError.

    The directory belongs to the application: no link in it is followed.
    """
    since = time.monotonic()
    text = json.dumps({"since": since, "until": since + AT_MOST + observed}).encode()
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(f"{name}{HOLD}", dir_fd=handle)
            file = os.open(f"{name}{HOLD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=handle)
            os.fchmod(file, 0o644)  # whatever the umask
            os.write(file, text)
            os.close(file)
    finally:
        os.close(handle)
    return since


def let_go(directory: Path, name: str) -> bool:
    """Let a program go on; return whether it was held."""
    try:
        (directory / f"{name}{HOLD}").unlink()
    except OSError:
        return False
    return True


def is_held(directory: Path, name: str, since: float) -> bool:
    """Return whether a worker has said since then that it consumes from no queue, as it is paused."""
    beat = read_json(directory / f"{name}{HEARTBEAT}")
    with suppress(TypeError, ValueError):
        is_fresh = float(beat.get("beat", 0)) >= since - 0.1  # it is rounded
        return is_fresh and bool(beat.get("connected")) and bool(beat.get("paused")) and not beat.get("queues")
    return False
