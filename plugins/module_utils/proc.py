"""Processes as /proc shows them. Standard library only, for runtime, modules and tests."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    """A live process, from /proc/<pid>/stat (proc_pid_stat(5))."""

    pid: int
    state: str
    """As in ps: R, S, D, T (stopped by a signal), t (by a debugger) ..."""
    parent: int
    group: int
    start: int
    """Start time in clock ticks since boot; with the pid it names one process, however pids are reused."""

    @property
    def age(self) -> float:
        """Return for how many seconds it has been there."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> Stat | None:
    """Return the process with this pid; None when there is none, or only its zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before the state may hold anything, a parenthesis as well.
    state, parent, group, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else Stat(pid, state, int(parent), int(group), int(rest[16]))


def start_of(pid: int) -> int | None:
    """Return when the process with this pid started, in clock ticks since boot; None when there is none."""
    found = stat(pid)
    return found.start if found else None


def pids() -> list[int]:
    """Return the pids of all processes."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def children(parent: int) -> list[Stat]:
    """Return the live processes that a process has started.

    From the kernel's list of each thread's (proc_tid_children(5)): looking at every process takes so long on a busy
    host that one which lasts a tenth of a second was missed in four looks of ten. Not every kernel has the lists.
    """
    lists = list((PROC / str(parent) / "task").glob("*/children"))
    listed = [pid for path in lists for pid in _numbers(path)] if lists else pids()
    return [found for pid in listed if (found := stat(pid)) and found.parent == parent]


def _numbers(path: Path) -> list[int]:
    """Return the numbers in a file of /proc; none if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(number) for number in path.read_text(encoding="ascii").split()]
    return []


def of_this_host(uid: int) -> Iterator[int]:
    """Yield the pids of a user's live processes, without those of containers on this host.

    A container's users may have the numbers of the host's; its processes have a pid of their own in there (NSpid).
    """
    for pid in pids():
        with contextlib.suppress(OSError):
            lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
            status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
            if int(status["Uid"][1]) == uid and len(status["NSpid"]) == 1 and status["State"][0] not in "ZX":
                yield pid


def memory(pid: int) -> int:
    """Return the bytes that a process takes, its share of what it shares with others included; 0 for none."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def words(pid: int) -> list[str]:
    """Return the command line of a process; empty where there is none, as of a kernel thread. Raises OSError."""
    line = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0")
    return [word.decode(errors="replace") for word in line.split(b"\0")] if line else []
