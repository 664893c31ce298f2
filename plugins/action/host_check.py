"""Check what a host has to fulfil, and spell the commands in what it says as the operator types them."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spells_commands


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False

    @spells_commands
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's own result."""
        super().run(tmp, task_vars)
        return self._execute_module(module_args={**self._task.args, "now": time.time()}, task_vars=task_vars)
