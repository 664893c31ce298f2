"""A service of systemd's that runs, is started at boot, and answers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import sandbox
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import carry_out

AT_BOOT = {"enabled", "static", "generated", "indirect", "alias"}
ANSWER_TIMEOUT = 30.0  # seconds
POLL = 0.2  # seconds


def service(unit: str, answers: Sequence[str], outcome: Outcome) -> None:
    """Start a unit now and at boot, and wait until a command succeeds (`answers`; empty for none).

    Raises OperatorError where it does not. Sandbox options that the host lacks are switched off then.
    """
    found = sandbox.properties(unit, "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload")
    if found["NeedDaemonReload"] == "yes" and not outcome.check:
        reload()
    if found["UnitFileState"] not in AT_BOOT:
        outcome.note(unit, {"at boot": found["UnitFileState"]}, {"at boot": "enabled"})
        if not outcome.check:
            carry_out("systemctl", "enable", unit)
    if is_down(found):
        outcome.note(unit, {"state": found["ActiveState"]}, {"state": "started"})
        outcome.started.append(unit)
    if outcome.check:
        return
    # Of one that is starting just now, this awaits the end.
    why = "" if found["ActiveState"] == "active" else start(unit)
    if why or not is_up(answers):
        sandbox.repair(unit, why or f"It does not answer within {ANSWER_TIMEOUT:.0f} s.", outcome)
        if not is_up(answers):
            raise OperatorError(f"{unit} does not answer within {ANSWER_TIMEOUT:.0f} s. Look: systemctl status {unit}")


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
