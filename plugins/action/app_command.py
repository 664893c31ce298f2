"""Run a command on the host as the application."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand, check_failed
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spells_commands
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class ActionModule(AppCommand):
    """Runs `argv`, or the line `command`, with the application's user, environment and virtualenv."""

    @spells_commands
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what ansible.builtin.command answers."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        words = arguments["argv"] if "argv" in arguments else shlex.split(arguments["command"])
        variables = Variables(task_vars or {}, self._templar.template)
        answer = self.as_app(map(str, words), variables, arguments.get("stdin"))
        if answer.get("rc") and "variable" in arguments:
            answer["msg"] = check_failed(arguments["variable"], arguments["command"], answer["msg"])
        return answer
