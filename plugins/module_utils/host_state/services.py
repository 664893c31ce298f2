"""A service of systemd's that runs, is started at boot, and answers; and processes that have read their files."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import sandbox
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.proc import stat
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import carry_out

AT_BOOT = {"enabled", "static", "generated", "indirect", "alias"}
ANSWER_TIMEOUT = 30.0  # seconds
POLL = 0.2  # seconds


def service(unit: str, answers: Sequence[str], outcome: Outcome, reads: Sequence[str] = ()) -> None:
    """Start a unit now and at boot, and wait until a command succeeds (`answers`; empty for none).

    Raises OperatorError where it does not. Sandbox options that the host lacks are switched off then. Of one that runs
    since before one of the files was written that it `reads`, that is noted: whoever calls restarts it.
    """
    found = sandbox.properties(unit, "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload")
    if found["NeedDaemonReload"] == "yes" and not outcome.check:
        reload()
    if found["UnitFileState"].startswith("masked"):
        raise OperatorError(
            f"{unit} is masked on this host, so that nothing starts it. Type there: systemctl unmask {unit}"
        )
    if found["UnitFileState"] not in AT_BOOT:
        outcome.note(unit, {"at boot": found["UnitFileState"]}, {"at boot": "enabled"})
        if not outcome.check:
            carry_out("systemctl", "enable", unit)
    if is_down(found):
        outcome.note(unit, {"state": found["ActiveState"]}, {"state": "started"})
        outcome.started.append(unit)
    elif reads:
        note_unread(unit, unread(reads, times(unit), time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)), outcome)
    if outcome.check:
        return
    # Of one that is starting just now, this awaits the end.
    why = "" if found["ActiveState"] == "active" else start(unit)
    if why or not is_up(answers):
        sandbox.repair(unit, why or f"It does not answer within {ANSWER_TIMEOUT:.0f} s.", outcome)
        if not is_up(answers):
            raise OperatorError(f"{unit} does not answer within {ANSWER_TIMEOUT:.0f} s. Look: systemctl status {unit}")


def process(name: str, pid: Sequence[str], outcome: Outcome, reads: Sequence[str]) -> None:
    """Note of a process that runs since before one of the files was written that it `reads`.

    The command `pid` prints its pid; where it prints none, there is no process.
    """
    said = subprocess.run(pid, capture_output=True, text=True, errors="replace", check=False).stdout.strip()
    found = stat(int(said)) if said.isdigit() else None
    if found:
        note_unread(name, written_since(reads, time.time() - found.age, time.time()), outcome)


def note_unread(name: str, files: list[str], outcome: Outcome) -> None:
    """Note what a service or process has not read."""
    if files:
        outcome.note(name, {"not read yet": files}, {"not read yet": []})
        outcome.unread.append(name)


def times(unit: str) -> dict[str, str]:
    """What systemd says of when a unit's process was started."""
    names = ("MainPID", "ExecMainStartTimestamp", "ExecMainStartTimestampMonotonic")
    said = sandbox.systemctl("show", unit, "--timestamp=unix", *(f"--property={name}" for name in names))
    return {name: value for name, _, value in (line.partition("=") for line in said.splitlines())}


def unread(reads: Iterable[str], said: Mapping[str, str], now: float, monotonic: float) -> list[str]:
    """Return the files that were written after a unit's process was started, by what systemd says of it.

    As the run does that ends between both. The clock may have been set since then, so the later time counts.
    """
    by_clock = said.get("ExecMainStartTimestamp", "")
    if said.get("MainPID", "0") == "0" or not by_clock.startswith("@"):
        return []
    begun = max(float(by_clock[1:]), now - monotonic + int(said["ExecMainStartTimestampMonotonic"]) / 1e6)
    return written_since(reads, begun, now)


def written_since(files: Iterable[str], begun: float, now: float) -> list[str]:
    """Return the files that were written after a time; one that is still to come says nothing."""
    return [each for each in files if Path(each).is_file() and begun < Path(each).stat().st_mtime <= now]


def is_down(found: Mapping[str, str]) -> bool:
    """Whether a unit neither runs nor starts. One that has failed and is to be tried again is "activating", too.

    One that is starting may have read its files before they were changed: it is none that was started with them.
    """
    is_retried = found["SubState"].startswith("auto-restart")
    return is_retried or found["ActiveState"] not in ("active", "activating", "reloading")


def reload() -> None:
    """Make systemd read its units again."""
    carry_out("systemctl", "daemon-reload")


def start(unit: str) -> str:
    """Start a unit; return what was said where it did not start."""
    done = subprocess.run(["systemctl", "start", unit], capture_output=True, text=True, errors="replace", check=False)
    return (done.stdout + done.stderr).strip() or "systemctl start failed." if done.returncode else ""


def is_up(answers: Sequence[str]) -> bool:
    """Whether a service's command succeeds before the deadline; True where there is none."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while not (succeeds(answers)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def succeeds(command: Sequence[str]) -> bool:
    """Whether a command ends with 0; True for none."""
    return not command or subprocess.run(command, capture_output=True, check=False).returncode == 0
