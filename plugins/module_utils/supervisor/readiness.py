"""Await programs' readiness: they come up, keep their pid, say that they are ready, and stay up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import ProcessInfo, Supervisord
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import without_unpack_place

POLL = 0.1
"""Seconds between two looks at supervisord."""

ASK_FIRST = 0.5
"""Seconds after its start when a program is first asked whether it is ready: until then it needs the processor more."""

ASK_AGAIN = (0.1, 2.0)
"""Seconds after which a ready command that said no is run again: at first, and at most after doubling."""

ANSWER = 5.0
"""Seconds beyond a program's time-out that a ready command has to tell its reason: it began later than the program."""

LOOKS = 10
"""The last looks at a program's processes that count: one that was found at work in half of them is still loading."""

LOADED_ANYWAY = 3
"""Times `min_uptime` after which a process that works all the time is loaded: it has requests."""

CRASHES = ("Exited too quickly", "Bad exit code")
"""How supervisord's words begin for a program that ran and ended; its other words are about starting it at all."""


class NotReady(Exception):
    """A program did not come up; the text says what was seen.

    `by_host` says that something else than the program is the cause, `missing` names a file that can't be executed:
    the host's fault, unless it is in the release.
    """

    def __init__(self, program: Generation, seen: str, *, by_host: bool = False, missing: str | None = None) -> None:
        super().__init__(f"{program.name} did not come up: {seen}")
        self.program = program
        self.by_host = by_host
        self.missing = missing

    @classmethod
    def down(cls, program: Generation, seen: str, error: str) -> NotReady:
        """Return it for a program that is down: it crashed, or supervisord could not start it, as `error` tells."""
        if "command" in error and not error.startswith(CRASHES):  # it can't be found, or is not executable
            return cls(program, seen, missing=program.executable)
        return cls(program, seen, by_host=bool(error) and not error.startswith(CRASHES))

    def is_release_fault(self, release_root: Path) -> bool:
        """Return whether the release itself is the cause; `release_root` is where releases are."""
        return not self.by_host and (self.missing is None or Path(self.missing).is_relative_to(release_root))


class ReadyCommand:
    """Runs a program's ready command over and over until it says yes.

    Yes is exit status 0, and `"ready": true` if its last line is a JSON object with that key.
    Without a command the answer is yes.
    """

    def __init__(self, program: Generation) -> None:
        self.program = program
        self.answered = not program.ready
        self.reason = "its ready command gave no answer yet"
        self._process: subprocess.Popen[bytes] | None = None
        self._out: IO[bytes] | None = None
        self._err: IO[bytes] | None = None
        self._not_before = time.monotonic() + ASK_FIRST
        self._pause = ASK_AGAIN[0]

    def poll(self, now: float) -> bool:
        """Start it or collect its answer, without waiting. Raises NotReady if it can't be executed."""
        if self.answered:
            return True
        if self._process is None:
            if now >= self._not_before:
                self._start()
        elif self._process.poll() is not None:
            self._collect()
            self._not_before = now + self._pause
            self._pause = min(2 * self._pause, ASK_AGAIN[1])
        return self.answered

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not answered yet."""
        return self._process is not None

    def close(self) -> None:
        """End it, with whatever it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        # Files, not pipes: whatever it writes, nothing has to read along.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 closed when read
        try:
            self._process = subprocess.Popen(
                self.program.ready,
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                env=without_unpack_place(),
                start_new_session=True,
            )
        except OSError as error:
            seen = f"its ready command {self.program.ready[0]} can't be run: {error.strerror}"
            raise NotReady(self.program, seen, missing=self.program.ready[0]) from None

    def _collect(self) -> None:
        if not (self._process and self._out and self._err):
            return
        status = self._process.returncode
        out, err = _last_line(self._out), _last_line(self._err)
        self._process = None
        answer = {}
        with suppress(ValueError):
            parsed = json.loads(out)
            answer = parsed if isinstance(parsed, dict) else {}
        self.answered = status == 0 and answer.get("ready", True) is True
        reason = answer.get("reason") or err or out or f"exit status {status}"
        self.reason = f"its ready command says: {reason}"


class Readiness:
    """What has been seen of one program since its start; `begun` and `ready_at` are monotonic seconds."""

    def __init__(self, program: Generation) -> None:
        self.program = program
        self.pid = 0
        self.begun = time.monotonic()
        self.ready_at = 0.0
        self._command = ReadyCommand(program)
        self._first_children: set[int] = set()
        self._at_work: dict[int, deque[bool]] = {}

    @property
    def seconds(self) -> float:
        """From its start until it was ready."""
        return self.ready_at - self.begun

    def look(self, process: ProcessInfo | None) -> bool:
        """Return whether it is ready and stayed up. Raises NotReady as soon as it can't be any more."""
        now = time.monotonic()
        seconds = now - self.begun
        if process is None:
            seen = f"it was removed from supervisord manually {seconds:.1f} s after its start"
            raise NotReady(self.program, seen, by_host=True)
        if process.state not in ("STARTING", "RUNNING"):
            reason = f" ({process.error})" if process.error else ""
            seen = f"it is {process.state}{reason} {seconds:.1f} s after its start"
            if process.state in ("STOPPING", "STOPPED"):
                raise NotReady(self.program, f"{seen}: it was stopped manually", by_host=True)
            raise NotReady.down(self.program, seen, process.error)
        if not self.pid:
            self.pid = process.pid
        elif process.pid != self.pid:
            raise NotReady(
                self.program,
                f"it ended and was started again (pid {self.pid}, then {process.pid}) within {seconds:.1f} s",
            )
        # RUNNING says no more than that startsecs are over; a ready command that says yes has seen it work.
        # So has one of its processes, whose own age is looked at.
        running = process.state == "RUNNING" or bool(self.program.ready) or self._has_children()
        if not self._command.poll(now) or not running:
            patience = ANSWER if self._command.is_running else 0.0
            if seconds > self.program.ready_timeout + patience:
                seen = self._command.reason if self.program.ready else f"it is still {process.state}"
                raise NotReady(self.program, f"not ready within {self.program.ready_timeout} s: {seen}")
            return False
        self.ready_at = self.ready_at or now
        # From then on, not from its start: how long that takes depends on how busy the host is.
        uptime = now - self.ready_at
        if self.program.min_uptime and self.program.lasting_children:
            return self._has_loaded(uptime)
        return uptime >= self.program.min_uptime

    def _has_children(self) -> bool:
        return self.program.lasting_children and any(proc.children(self.pid))

    def _has_loaded(self, uptime: float) -> bool:
        """Return whether one of its processes has lasted and waits for work; without any, the program itself.

        One that is merely young, or has not loaded its code yet, as on a busy host, is waited for.
        """
        children = proc.children(self.pid)
        self._first_children = self._first_children or {child.pid for child in children}
        itself = proc.stat(self.pid)
        own = children or ([itself] if itself and not self._first_children else [])
        for process in own:
            self._at_work.setdefault(process.pid, deque(maxlen=LOOKS)).append(process.state in "RD")
        if uptime < self.program.min_uptime:
            return False
        lasted = [process.pid for process in own if process.age >= self.program.min_uptime]
        # Two looks on a starved host may both fall between one child's end and the next one's start.
        if not self._first_children and any(len(self._at_work[pid]) < LOOKS for pid in lasted):
            return False
        if any(2 * sum(self._at_work[pid]) < len(self._at_work[pid]) for pid in lasted):
            return True
        if lasted:
            return uptime >= LOADED_ANYWAY * self.program.min_uptime
        if not self._first_children <= {child.pid for child in children}:
            raise NotReady(self.program, "it is up, but the processes it starts keep ending")
        return False

    def close(self) -> None:
        """End a ready command that still runs."""
        self._command.close()


def await_ready(
    supervisord: Supervisord,
    programs: Iterable[Generation],
    known: dict[str, Readiness] | None = None,
    *,
    observed: bool = True,
) -> list[Readiness]:
    """Wait until all programs are ready and stayed up; return what was seen, in order. Raises NotReady.

    Unless `observed`, until they are ready. `known` is by name what was seen of them before, and gets what is seen now.
    """
    seen = {} if known is None else known
    waited = [seen.setdefault(program.name, Readiness(program)) for program in programs]
    try:
        while waited:
            processes = supervisord.processes()
            # Each is looked at every time: one that was ready early may still die while another comes up.
            stayed_up = [one.look(processes.get(one.program.name)) for one in waited]
            if all(stayed_up) or (not observed and all(one.ready_at for one in waited)):
                break
            time.sleep(POLL)
    finally:
        for one in waited:
            one.close()
    return waited


def log_size(path: str | None) -> int:
    """Return the size of a program's log in bytes; 0 if there is none."""
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:
        return 0


def log_tail(path: str | None, since: int = 0, lines: int = 20) -> list[str]:
    """Return the last lines of a program's log after `since` bytes, none if it can't be read.

    A generation that failed before and is tried again goes on writing to the same log.
    """
    if not path:
        return []
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since if since <= size else 0, size - 65536))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError as error:
        return [f"({error})"]


def _last_line(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    file.close()
    return lines[-1].strip() if lines else ""
