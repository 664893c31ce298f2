"""What the watchdog remembers of one program."""

import signal
import time
from collections.abc import Callable

from celery_ops.watchdog.assessment import Assessment

PAUSES = (30.0, 900.0)
"""Seconds between two remedies for one program: at first, and at most after doubling."""

HEALTHY = frozenset({"ready", "busy"})
"""States between which a program goes to and fro; that is no news."""


class Tracker:
    """Tracks a program: its state since when, and what was done about it."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.assessment: Assessment | None = None
        self.since = 0.0
        self.pid = 0
        self.seen = time.monotonic()
        self.restarts = 0
        self.not_before = 0.0
        self.begun = 0.0
        self.done = 0
        self.accepted: tuple[int, float] = (-1, 0.0)

    def idle(self, accepted: int, now: float) -> float:
        """Return for how many seconds the number of tasks it has accepted has been the same."""
        if accepted != self.accepted[0]:
            self.accepted = (accepted, now)
        return now - self.accepted[1]

    def update(self, assessment: Assessment, pid: int, now: float) -> None:
        """Take over an assessment; log it if it is news."""
        before, self.assessment = self.assessment, assessment
        if before is not None and (before.state, self.pid) == (assessment.state, pid):
            return
        known = {before.state, assessment.state} if before else set()
        if not (known and known <= HEALTHY and self.pid == pid):
            why = f" - {assessment.why}" if assessment.why else ""
            after = f" (was {before.state} for {now - self.since:.0f} s)" if before else ""
            self.say(f"{self.name}, pid {pid or 'none'}: {assessment.state}{why}{after}")
        self.pid, self.since, self.done = pid, now, 0
        # After a remedy the next trouble has to last longer before the next one.
        self.begun = max(now, self.not_before)

    def due(self, steps: list[tuple[float, signal.Signals]], now: float) -> signal.Signals | None:
        """Return the signal whose time has come, once."""
        if self.done >= len(steps) or now - self.begun < steps[self.done][0]:
            return None
        if self.done == 0:
            # Long without one: earlier remedies no longer count.
            self.restarts = self.restarts + 1 if now < self.not_before + PAUSES[1] else 1
            self.not_before = now + min(PAUSES[0] * 2 ** (self.restarts - 1), PAUSES[1])
        self.done += 1
        return steps[self.done - 1][1]
