"""Call a module, and spell the commands in what it says as the operator types them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spells_commands


class SpelledModule(ActionBase):
    """An action plugin that is the module of the same name, but for what the commands in its messages look like."""

    TRANSFERS_FILES = False

    @spells_commands
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's own result."""
        super().run(tmp, task_vars)
        return self._execute_module(module_args=self.arguments(), task_vars=task_vars)

    def arguments(self) -> dict[str, Any]:
        """Return what the module gets; by default the task's own."""
        return dict(self._task.args)
