"""Check what a host has to fulfil, and spell the commands in what it says as the operator types them."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action


class ActionModule(Action):
    """Runs the module of the same name, which compares the host's clock with the control node's."""

    def act(self) -> dict[str, Any]:
        """Return the module's own answer."""
        return self.run_module({**self._task.args, "now": time.time()})
