"""Replaces a worker that has outgrown its memory, without a gap and without root.

The watchdog starts a stand-in beside it, which is the same command by another name. When that consumes, the worker is
told to finish; Supervisor starts it again; when that is ready, the stand-in is told to finish. If the watchdog ends
meanwhile, the kernel tells the stand-in to finish (the guard has asked for that), and the next watchdog takes it for
an orphan. The log of a stand-in is the watchdog's.
"""

import configparser
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery_ops import proc
from celery_ops.launch.process import MARK, Process
from celery_ops.layout import HEARTBEAT, stand_in_of
from celery_ops.watchdog.assessment import MARGIN, Seen
from celery_ops.watchdog.tracker import HEALTHY
from celery_ops.worker.heartbeat import READY

PAUSES = (30.0, 900.0)
"""Seconds that a worker has to be there before it is recycled, and after that before the next time; doubled, up to the
second number, where that was in vain: it took too much before they were over, or was not replaced."""
START = 120.0
"""Seconds in which a stand-in, or the worker that Supervisor has started again, has to be ready."""

Read = Callable[[Path], dict[str, Any]]


def memory(processes: Iterable[Process]) -> int:
    """Return the bytes that processes take, with what they share counted once (their proportional set size)."""
    return sum(proc.memory(one.pid) for one in processes)


def command_of(conf: Path, program: str) -> list[str]:
    """Return the command that Supervisor starts a program by. Raises OSError and KeyError."""
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
    parser.read_string(conf.read_text(encoding="utf-8"))
    return shlex.split(parser[f"program:{program}"]["command"].replace("%%", "%"))


class Recycling:
    """One worker that is being replaced."""

    def __init__(self, seen: Seen, conf_dir: Path, run: Path, read: Read, say: Callable[[str], None]) -> None:
        self.name, self.old, self.run, self.read, self.say = seen.name, seen.main, run, read, say
        self.start_timeout = max(START, seen.starts)
        self.stand_in: subprocess.Popen[bytes] | None = None
        self.stand_in_name = stand_in_of(seen.name)
        self.told = False
        """Whether the worker was told to finish."""
        self.is_replaced = False
        """Whether another process works in its place."""
        self.over = False
        """Whether nothing is left to do but to wait for the stand-in to end."""
        self.finishes_until = 0.0
        self.began = time.monotonic()
        self.gone_since = 0.0
        if seen.main.has_stand_in:
            words = [word.replace(seen.name, self.stand_in_name) for word in command_of(conf_dir, seen.name)]
            # Its output goes where the watchdog's goes. In a session of its own, as a program of Supervisor's is.
            self.stand_in = subprocess.Popen(
                words, env=environment(seen.main.pid), stdin=subprocess.DEVNULL, start_new_session=True
            )
            say(f"{seen.name}: stand-in started, pid {self.stand_in.pid}")

    @property
    def pid(self) -> int | None:
        """The stand-in's; None where it has not finished in its time, and so is an orphan."""
        in_time = not self.over or time.monotonic() < self.finishes_until
        return self.stand_in.pid if self.stand_in and in_time else None

    @property
    def ended(self) -> bool:
        """Whether all is done."""
        return self.over and (self.stand_in is None or self.stand_in.poll() is not None)

    def step(self, main: Process | None, now: float) -> None:
        """Do what is due, given the program's process that Supervisor has at present."""
        if self.over:
            return
        if not self.told:
            self._tell(main, now)
        elif main is not None and main.pid != self.old.pid:
            if self._is_ready(self.name, main.pid):
                self.is_replaced = True
                self._let_go(f"pid {main.pid} works in its place, {now - self.began:.0f} s after the beginning")
            elif main.age > self.start_timeout:
                self._let_go(f"pid {main.pid} is not ready after {main.age:.0f} s")
        elif main is None:
            self.gone_since = self.gone_since or now
            if now - self.gone_since > self.start_timeout:
                self._let_go("Supervisor has not started it again")

    def _tell(self, main: Process | None, now: float) -> None:
        """Tell the worker to finish, once the stand-in consumes."""
        if main is None or main.pid != self.old.pid:
            self._let_go("it has ended by itself")
        elif self.stand_in and self.stand_in.poll() is not None:
            self._let_go(f"its stand-in has ended with {self.stand_in.returncode}; the worker was left alone")
        elif self.stand_in is None or self._is_ready(self.stand_in_name, self.stand_in.pid, consumes=True):
            self.told = True
            self.say(f"{self.name}: TERM sent to {self.old.pid}, to finish, so that Supervisor starts it again")
            self.old.send(signal.SIGTERM)
        elif now - self.began > self.start_timeout:
            self._let_go(f"its stand-in does not consume after {now - self.began:.0f} s; the worker was left alone")

    def _let_go(self, why: str) -> None:
        """Tell the stand-in to finish."""
        self.over, self.finishes_until = True, time.monotonic() + self.old.drain_timeout + MARGIN
        if self.stand_in:
            self.stand_in.terminate()
        self.say(f"{self.name}: {why}{'; the stand-in finishes' if self.stand_in else ''}")

    def _is_ready(self, name: str, pid: int, consumes: bool = False) -> bool:
        beat = self.read(self.run / f"{name}{HEARTBEAT}")
        ready = beat.get("pid") == pid and beat["state"] == READY
        queues = beat.get("queues") or {}
        return ready and (not consumes or (bool(queues) and all(queues.values())))


@dataclass
class Record:
    """What the watchdog remembers of one program with a limit."""

    memory: int = 0
    count: int = 0
    """How often it was replaced."""
    pid: int = 0
    """The process that took too much, the last one of them."""
    age: float = 0.0
    """In seconds, of that process when that began."""
    tried: bool = False
    """Whether replacing that process was begun before."""
    pause: float = 0.0
    not_before: float = 0.0


class Recycler:
    """Recycles the workers of a host, one after the other."""

    def __init__(self, conf_dir: Path, run: Path, read: Read, say: Callable[[str], None]) -> None:
        self.conf_dir, self.run, self.read, self.say = conf_dir, run, read, say
        self.current: Recycling | None = None
        self.records: dict[str, Record] = {}

    def look(self, seen: Seen, state: str, now: float) -> None:
        """Begin to recycle a worker that has outgrown its memory, and is healthy otherwise."""
        main, limit = seen.main, seen.main.max_memory
        if not limit:
            return
        record = self.records.setdefault(seen.name, Record())
        record.memory = memory((main, *seen.children))
        if record.memory <= limit:
            return
        if record.pid != main.pid:
            record.pid, record.age, record.tried = main.pid, main.age, False
        if self.current or state not in HEALTHY or main.age < PAUSES[0] or now < record.not_before:
            return
        in_vain = record.age < PAUSES[0] or record.tried
        record.pause = min(2 * record.pause, PAUSES[1]) if in_vain and record.pause else PAUSES[0]
        record.tried, record.not_before = True, now + record.pause
        sizes = f"takes {record.memory >> 20} MiB, and may take {limit >> 20}"
        self.say(f"{seen.name}, pid {main.pid}: {sizes}; it is replaced")
        try:
            self.current = Recycling(seen, self.conf_dir / f"{seen.name}.conf", self.run, self.read, self.say)
        except (OSError, KeyError, ValueError, configparser.Error) as error:
            self.say(f"{seen.name}: no stand-in could be started: {error!r}")

    def step(self, programs: dict[str, Process], now: float) -> None:
        """Go on with what was begun."""
        if not self.current:
            return
        self.current.step(programs.get(self.current.name), now)
        if self.current.ended:
            self.records[self.current.name].count += self.current.is_replaced
            self.current = None

    @property
    def stand_in(self) -> int | None:
        """The pid of a stand-in that is no orphan."""
        return self.current.pid if self.current else None

    def about(self, name: str) -> dict[str, Any]:
        """Return what the watchdog's heartbeat says of a program with a limit; nothing of another."""
        record, is_current = self.records.get(name), self.current is not None and self.current.name == name
        return {"memory": record.memory, "recycled": record.count, "recycling": is_current} if record else {}


def environment(pid: int) -> dict[str, str]:
    """Return a process's environment, as it was when it became its program, without the mark. Raises OSError."""
    pairs = (proc.PROC / str(pid) / "environ").read_bytes().split(b"\0")
    found = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    return {name: value for name, value in found.items() if name != MARK}
