"""Check what a restart is asked for, and say what it did on each host, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import to_restart
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import said

RESULT = "__celery_app_restarted"
"""What the phases of a restart have registered, by phase."""


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node."""

    def act(self) -> dict[str, Any]:
        """Return the line; with `state: check`, fail where a program is asked for that there is not."""
        variables = self.variables
        if self._task.args.get("state") == "check":
            to_restart(variables, "all")
            return {"changed": False}
        hosts = {host: variables["hostvars"][host].get(RESULT) or [] for host in variables["ansible_play_hosts_all"]}
        return outcome(hosts, check=self._task.check_mode)


def outcome(hosts: Mapping[str, list[Mapping[str, Any]]], *, check: bool) -> dict[str, Any]:
    """Return the line; failed where nothing was restarted."""
    return said(line(hosts, check=check), failed=not any(hosts.values()))


def line(hosts: Mapping[str, list[Mapping[str, Any]]], *, check: bool = False) -> str:
    """Return what became of which programs, host by host."""
    done = [f"{', '.join(map(told, programs))} on {host}" for host, programs in hosts.items() if programs]
    return f"restart{' (check mode)' if check else ''}: {'; '.join(done) or 'no such program on these hosts'}"


def told(program: Mapping[str, Any]) -> str:
    """Return what became of one program."""
    seconds = (program.get("seconds") or {}).get("ready")
    ready = f" ready in {seconds} s" if seconds else ""
    draining = ", the one before still finishes its tasks" if program.get("draining") else ""
    return f"{program['program']}{ready}{draining}"
