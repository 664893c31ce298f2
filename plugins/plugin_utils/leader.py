"""Which of several schedulers leads, as the status of their hosts tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import schedulers

LEADS, STANDS_BY = "ready", "standby"
"""The watchdog's assessments of a scheduler's program."""

Programs = Mapping[str, Mapping[str, Any]]


def groups_of_schedulers(variables: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the hosts of one application's schedulers at one broker, for each application and broker in the play."""
    play = variables["ansible_play_hosts_all"]
    shared = {name: variables[name] for name in ("groups", "hostvars")}
    found = {host: tuple(schedulers({**shared, "inventory_hostname": host})) for host in play}
    return list(dict.fromkeys(hosts for host, hosts in found.items() if host in hosts))


@dataclass
class Leadership:
    """Who schedules an application's tasks, as the status of the schedulers' hosts tells."""

    hosts: list[str]
    leading: list[str] = field(default_factory=list)
    standing_by: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Hosts that were not looked at."""

    def lines(self) -> list[str]:
        """Return it for people; of a scheduler that is alone there is nothing to say."""
        if len(self.hosts) < 2:
            return []
        lines = [
            f"leader: {', '.join(self.leading) or 'none seen'}",
            f"standby: {', '.join(self.standing_by) or 'none seen'}",
        ]
        return [*lines, *([f"not looked at: {', '.join(self.unseen)}"] if self.unseen else [])]

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        wrong = []
        if len(self.hosts) < 2:
            return []
        if not self.leading and not self.unseen:
            wrong.append("No scheduler leads: no task is scheduled. Look: supervisorctl status and rabbitmqctl status")
        if len(self.leading) > 1:
            wrong.append(
                "Two schedulers say that they lead. One of them changed a moment ago: look again in 20 s. If it stays: "
                "supervisorctl stop one of them"
            )
        if len(self.leading) == 1 and not self.standing_by and not self.unseen:
            wrong.append("No scheduler stands by: if the leader's host fails, no task is scheduled")
        return wrong


def leadership(found: Mapping[str, Programs | None]) -> Leadership:
    """Return who leads, of the programs by host; None for a host that was not looked at."""
    return Leadership(
        list(found),
        list(_of_health(found, LEADS)),
        list(_of_health(found, STANDS_BY)),
        [host for host, programs in found.items() if programs is None],
    )


def _of_health(found: Mapping[str, Programs | None], health: str) -> Iterable[str]:
    for host, programs in found.items():
        for name, program in (programs or {}).items():
            if "-scheduler-" in name and program.get("health") == health:
                yield f"{name} on {host}"
