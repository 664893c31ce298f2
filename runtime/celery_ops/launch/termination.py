"""Ends processes that have lost their supervisor: one TERM, the time to finish their work, then KILL."""

import signal
import time
from collections.abc import Callable

from celery_ops.launch.process import EX_CANTCREAT, ExitError, Process

Say = Callable[[str], None]
KILL_PATIENCE = 10.0
"""Seconds that a process may take to go after a KILL."""


class Termination:
    """Ends processes of ours that nobody supervises: one TERM, time to drain, KILL."""

    def __init__(self, drain_timeout: float, say: Say) -> None:
        self.drain_timeout, self.say = drain_timeout, say
        self.kill_at = time.monotonic() + drain_timeout
        self.give_up_at = self.kill_at + KILL_PATIENCE
        self.sent: set[tuple[int, int, signal.Signals]] = set()

    def step(self, targets: list[Process], processes: list[Process]) -> None:
        """Do what is due: TERM to `targets`, later KILL to all of `processes`.

        Raises ExitError (73) when they outlive even that.
        """
        for process in targets:
            who = "has lost its supervisor" if process.is_main else "is a child that outlived it"
            why = f"{who}, has {self.drain_timeout:g} s to finish its work"
            self._send(process, signal.SIGTERM, why)
        if time.monotonic() > self.kill_at:
            for process in processes:
                self._send(process, signal.SIGKILL, f"did not finish within {self.drain_timeout:g} s")
        if time.monotonic() > self.give_up_at:
            pids = " ".join(str(process.pid) for process in processes)
            raise ExitError(EX_CANTCREAT, f"pids {pids} survived SIGKILL; look at them: ps -o pid,stat,wchan {pids}")

    def _send(self, process: Process, number: signal.Signals, why: str) -> None:
        if (process.pid, process.start, number) not in self.sent:
            self.sent.add((process.pid, process.start, number))
            who = f"pid {process.pid} ({process.identity.program}, since {process.since})"
            self.say(f"{who} {why}: {number.name} sent")
            process.send(number)
