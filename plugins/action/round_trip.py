"""Send a task to the workers and get it back, and wait for a tick of the scheduler."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import scheduler_class
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class ActionModule(AppCommand):
    """Runs the runtime's own check on the host, in the deployment that is live."""

    def act(self) -> dict[str, Any]:
        """Return what it found as `found`; fail with its reason."""
        variables = self.variables
        answer = self.as_app(command(variables))
        answer |= {"changed": False, "found": found_in(answer)}
        if answer.get("rc") and (reason := answer["found"].get("reason")):
            answer["msg"] = reason
        return answer


def command(variables: Variables) -> list[str]:
    """Return the words of the check."""
    timeout = max(layout.READY_TIMEOUT, int(variables.get("celery_worker_ready_timeout", 0)))
    words = ["celery-ops-check", "-A", variables["celery_app_module"], "--timeout", str(timeout)]
    options = variables["celery_scheduler_options"]
    if not variables["groups"].get("scheduler") or not boolean(variables["celery_scheduler_enabled"]):
        return [*words, "--no-scheduler"]
    return [*words, "--scheduler", name] if (name := scheduler_class(options)) else words


def found_in(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the line of JSON that the check prints; empty where it printed none."""
    try:
        found = json.loads(answer.get("stdout") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
