"""Switch off the sandbox options of a systemd unit that its host can't do, as in many LXC and Docker containers.

For a unit that did not start. Where systemd says that a sandbox option was the reason (217/USER or 226/NAMESPACE, as in
containers that may make no namespaces), those options are switched off by a drop-in, and the unit is started.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_if_there, write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SYSTEMD_UNITS

DROPIN = "sandbox-off.conf"  # systemd reads it after the kit's celery-ops.conf
START_TIMEOUT = 30.0  # seconds
HEADER = (
    "# Ansible managed: celery-ops. This host can't do these options of the unit: it ended with {status}.\n[Service]\n"
)

# What makes systemd end with a status before the program has begun (systemd.exec(5)), and what is no such option.
MOUNTS = {
    **dict.fromkeys(("PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectSystem", "ProtectHome"), "no"),
    **dict.fromkeys(
        ("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups"), "no"
    ),
    **dict.fromkeys(("ProtectHostname", "ProtectClock", "PrivateNetwork", "PrivateIPC", "MountAPIVFS"), "no"),
    **{"ProtectProc": "default", "ProcSubset": "all"},
    **dict.fromkeys(("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths"), ""),
    **dict.fromkeys(("BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem"), ""),
}
OPTIONS = {"217": {"PrivateUsers": "no"}, "226": MOUNTS}


def systemctl(*words: str) -> str:
    """What systemctl answers."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, errors="replace", check=False).stdout


def properties(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, by name."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def ended_with(unit: str) -> str:
    """The status that the unit's program ended with; empty when it runs.

    Waits until that shows: a simple unit is active before it has begun. State and status come from one answer:
    by the next one systemd may have begun another attempt, whose status is 0.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        now = properties(unit, "ActiveState", "SubState", "MainPID", "ExecMainStatus")
        failed = now["ActiveState"] == "failed" or now["SubState"] == "auto-restart"
        if failed or time.monotonic() >= deadline:
            return now["ExecMainStatus"]
        comm = text_if_there(Path("/proc", now["MainPID"], "comm"))
        # Until systemd's child has become the program, its name is in parentheses or systemd's own.
        if now["ActiveState"] == "active" and comm and not comm.startswith(("(", "sd-", "systemd")):
            return ""
        time.sleep(0.1)


def off(status: str, found: dict[str, str]) -> list[str]:
    """The lines that switch off what a unit has set and what ended it with this status."""
    return [f"{name}={value}\n" for name, value in OPTIONS[status].items() if found.get(name, value) != value]


def journal_of(unit: str) -> str:
    """The end of what a unit said."""
    words = ["journalctl", "--unit", unit, "--lines", "15", "--no-pager"]
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False).stdout


def repair(unit: str, why: str, outcome: Outcome) -> None:
    """Start a unit without what its host can't do.

    Raises OperatorError, with what was said when it did not start (`why`) and its journal's end, where that is not it.
    """
    path, switched_off = SYSTEMD_UNITS / f"{unit}.service.d" / DROPIN, []
    before = text = path.read_text() if path.exists() else ""
    while status := ended_with(unit):
        lines = off(status, properties(unit, *OPTIONS[status])) if status in OPTIONS else []
        if not lines:
            raise OperatorError(f"{unit} does not start. {why} Look: systemctl status {unit}\n{journal_of(unit)}")
        switched_off += lines
        text += HEADER.format(status=status) + "".join(lines)
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_atomically(path, text)
        systemctl("daemon-reload")
        # An attempt that systemd began by itself meanwhile still has the options as they were.
        systemctl("stop", unit)
        systemctl("reset-failed", unit)
        systemctl("start", unit)
    if switched_off:
        outcome.changed_path(str(path), before, text)
        outcome.warnings.append(
            f"This host does not support all that {unit}'s unit asks for, as in a container without namespaces. {path} "
            f"switches off: {' '.join(''.join(switched_off).split())}"
        )
