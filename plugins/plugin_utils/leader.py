"""Which of several schedulers leads, as the status of their hosts tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import schedulers

STATUS = "__celery_app_status"
"""What each host's status was registered as."""
LEADS, STANDS_BY = "ready", "standby"
"""The watchdog's assessments of a scheduler's program."""

Programs = Mapping[str, Mapping[str, Any]]


def leader(variables: Mapping[str, Any]) -> str:
    """Return lines on the schedulers of this application, or what is wrong with them; empty where one is alone."""
    names = schedulers(variables)
    if len(names) < 2:
        return ""
    results = {name: variables["hostvars"][name].get(STATUS) or {} for name in names}
    return "\n".join(described({name: result.get("programs") for name, result in results.items()}))


def described(found: Mapping[str, Programs | None]) -> list[str]:
    """Return the lines, of the programs by host; None for a host that was not looked at."""
    leading = list(_of_health(found, LEADS))
    standing_by = list(_of_health(found, STANDS_BY))
    unseen = [host for host, programs in found.items() if programs is None]
    lines = [f"leader: {', '.join(leading) or 'none seen'}", f"standby: {', '.join(standing_by) or 'none seen'}"]
    lines += [f"not looked at: {', '.join(unseen)}"] if unseen else []
    wrong = []
    if not leading and not unseen:
        wrong.append("No scheduler leads: no task is scheduled. Look: supervisorctl status, and the broker's alarms")
    if len(leading) > 1:
        wrong.append(
            "Two schedulers say that they lead. One of them changed a moment ago: look again in 20 s. If it stays: "
            "supervisorctl stop one of them"
        )
    if leading and not standing_by and not unseen:
        wrong.append("No scheduler stands by: if the leader's host fails, no task is scheduled")
    return [*lines, *(["PROBLEMS:", *(f"- {line}" for line in wrong)] if wrong else ["OK"])]


def _of_health(found: Mapping[str, Programs | None], health: str) -> Iterable[str]:
    for host, programs in found.items():
        for name, program in (programs or {}).items():
            if "-scheduler-" in name and program.get("health") == health:
                yield f"{name} on {host}"
