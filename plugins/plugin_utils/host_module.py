"""Call a module that works in a process of its own on the host (module_utils/host_work.py)."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.task import Task
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action

from .runs import run_id

UNPACK_IN = {"TMPDIR": "/run"}
"""Ansible unpacks a module in the directory for temporary files, which is elsewhere on a disk that may be full."""

LOST = "the connection to it was lost"


def unpack_in_run(task: Task) -> None:
    """Make a task's module be unpacked where a disk is seldom full."""
    environments = task.environment or []
    if UNPACK_IN not in environments:
        task.environment = [UNPACK_IN, *environments]


class HostModule(Action):
    """An action plugin whose module of the same name works for an application on the host, and may take long."""

    MODULE: str | None = None
    """The module, where it is not the one of the same name."""

    def call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The module's answer, asked for in short calls: nothing drops a connection that is never idle for long."""
        # The worker that runs this task is a child of ansible-playbook.
        answer = self.ask({**arguments, "run": run_id(os.getppid())})
        while job := answer.get("running"):
            known = {key: arguments[key] for key in ("app", "program_prefixes") if key in arguments}
            answer = self.ask({**known, "job": job})
        return answer

    def ask(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """One call of the module. Its arguments, a program's conf or an environment, belong in nobody's journal.

        A lost connection is a failure like others: Ansible would end the run, and restore no host, where an unreachable
        one was alone in its batch or group.
        """
        unpack_in_run(self._task)
        try:
            return self.run_module(arguments, name=self.MODULE, in_journal=False)
        except AnsibleConnectionFailure as error:
            return {"failed": True, "lost": True, "msg": f"{LOST} ({' '.join(str(error).split())[:300]})"}
