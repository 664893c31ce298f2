"""Run a command on the host as the application."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand, check_failed


class ActionModule(AppCommand):
    """Runs `argv`, or the line `command`, with the application's user, environment and virtualenv."""

    def act(self) -> dict[str, Any]:
        """Return what ansible.builtin.command answers."""
        arguments = self._task.args
        words = arguments["argv"] if "argv" in arguments else shlex.split(arguments["command"])
        answer = self.as_app(map(str, words), arguments.get("stdin"))
        if answer.get("rc") and "variable" in arguments:
            answer["msg"] = check_failed(arguments["variable"], arguments["command"], answer["msg"])
        return answer
