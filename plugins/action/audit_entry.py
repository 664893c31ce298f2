"""Add a line to the audit log of an application, with who runs the playbook."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class ActionModule(ActionBase):
    """Names the actor, which only the control node knows; the module of the same name writes."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        who = actor(Variables(task_vars or {}, self._templar.template))
        return self._execute_module("celery_ops.kit.audit_entry", {**self._task.args, "who": who}, task_vars=task_vars)
