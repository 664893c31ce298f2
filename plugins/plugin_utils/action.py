"""What the kit's action plugins have in common."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class Action(ActionBase):
    """An action plugin that answers an operator; `act` is what it does.

    An OperatorError fails the task with its words. Commands in what it says are spelled as this operator types them.
    """

    TRANSFERS_FILES = False
    variables: Variables
    """The task's, each evaluated when it is first asked for."""
    task_vars: dict[str, Any]
    """The same as Ansible gives them, for calls of modules."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer, or the refusal."""
        super().run(tmp, task_vars)
        self.task_vars = task_vars or {}
        self.variables = Variables(self.task_vars, self._templar.template)
        try:
            return spelled(self.act())
        except OperatorError as refusal:
            return spelled({"failed": True, "msg": str(refusal)})

    def act(self) -> dict[str, Any]:
        """Return the task's answer: by default that of the module of the same name. May raise OperatorError."""
        return self.run_module(dict(self._task.args))

    def run_module(
        self, arguments: dict[str, Any], *, name: str | None = None, in_journal: bool = True
    ) -> dict[str, Any]:
        """Return what a module answers: the one of the task's name, or another; the host's journal may get no word."""
        task_vars = self.task_vars if in_journal else {**self.task_vars, "ansible_no_target_syslog": True}
        return self._execute_module(name, arguments, task_vars=task_vars)


class ControlNodeAction(Action):
    """An action plugin that runs wholly on the control node."""

    _requires_connection = False
