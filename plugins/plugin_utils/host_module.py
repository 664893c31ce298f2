"""Call a module that works in a process of its own on the host (module_utils/host_work.py)."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase

from .runs import run_id


class HostModule(ActionBase):
    """An action plugin whose module of the same name may take long."""

    TRANSFERS_FILES = False

    def call(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The module's answer, asked for in short calls: nothing drops a connection that is never idle for long."""
        # Arguments such as a program's conf or an environment belong in nobody's journal.
        quiet = {**(task_vars or {}), "ansible_no_target_syslog": True}
        # The worker that runs this task is a child of ansible-playbook.
        answer = self._execute_module(module_args={**arguments, "run": run_id(os.getppid())}, task_vars=quiet)
        while job := answer.get("running"):
            known = {key: arguments[key] for key in ("app", "family_prefix") if key in arguments}
            answer = self._execute_module(module_args={**known, "job": job}, task_vars=quiet)
        return answer
