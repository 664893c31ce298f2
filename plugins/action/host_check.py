"""Check what a host has to fulfil, and spell the commands in what it says as the operator types them."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.spelled_module import SpelledModule


class ActionModule(SpelledModule):
    """Runs the module of the same name, which compares the host's clock with the control node's."""

    def arguments(self) -> dict[str, Any]:
        """Return the task's arguments, and the time."""
        return {**super().arguments(), "now": time.time()}
