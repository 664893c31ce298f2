"""Tells those who want to know what the watchdog did, by a process of its own: the watchdog waits for nobody."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from celery_ops.launch.process import MARK

LINES = 20
"""Lines of one notice, at most."""
PAUSE = 60.0
"""Seconds from one notice to the next; what is done meanwhile is in that one."""
PATIENCE = 60.0
"""Seconds that the sending process may take; each target has a deadline of its own."""


class Teller:
    """Collects lines and sends them, at most one notice a minute; without the file of targets it forgets them."""

    def __init__(self, targets: Path) -> None:
        self.targets = targets
        self.lines: list[str] = []
        self.more = 0
        self.not_before = self.kill_at = 0.0
        self.sender: subprocess.Popen[bytes] | None = None

    def add(self, line: str) -> None:
        """Add what was done."""
        if len(self.lines) < LINES:
            self.lines.append(line)
        else:
            self.more += 1

    def step(self, now: float, last: bool = False) -> None:
        """Send what there is, if it is time for it; the last one is sent in any case. Never raises, never waits."""
        if self.sender and self.sender.poll() is None:
            if now > self.kill_at:
                self.sender.kill()
            if not last:
                return
        if not self.lines or (now < self.not_before and not last):
            return
        lines, self.lines = self.lines + ([f"... and {self.more} more"] if self.more else []), []
        self.more, self.not_before, self.kill_at = 0, now + PAUSE, now + PATIENCE
        if not self.targets.exists():
            return
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        with contextlib.suppress(OSError):
            self.sender = subprocess.Popen(
                [sys.executable, "-m", "celery_ops.cli.notify", str(self.targets)],
                stdin=subprocess.PIPE, env=environment, start_new_session=True,
            )  # fmt: skip
            # A few kilobytes: a pipe takes them at once.
            self.sender.stdin.write(json.dumps(lines).encode())
            self.sender.stdin.close()
