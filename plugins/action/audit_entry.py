"""Add a line to the audit log of an application, with who runs the playbook."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor


class ActionModule(Action):
    """Names the actor, which only the control node knows; the module of the same name writes."""

    def act(self) -> dict[str, Any]:
        """Return the module's result."""
        return self.run_module({**self._task.args, "who": actor(self.variables)})
