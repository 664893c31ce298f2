"""Run a command on the host as the application, in the deployment that is live."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import unpack_in_run
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class AppCommand(Action):
    """An action plugin whose work is a command of the application."""

    def as_app(self, words: Iterable[str], stdin: str | None = None) -> dict[str, Any]:
        """Return what ansible.builtin.command answers; a failure says what the command did.

        Where there is nothing to run it in, there is no `rc`: no command has ended.
        """
        words = [*words]
        for of_0_1 in (False, True):
            deployment = Deployment.current(self.variables["celery_app_name"], of_0_1)
            unpack_in_run(self._task)  # the command's own temporary files go elsewhere
            argv = ["env", "-u", "TMPDIR", *deployment.as_app(words)]
            arguments = {"argv": argv, **({} if stdin is None else {"stdin": stdin})}
            answer = self.run_module(arguments, name="ansible.legacy.command")
            if not answer.get("rc"):
                return answer
            if self._low_level_execute_command(f"test -x {deployment.tool('celery-ops-env')}")["rc"] == 0:
                return said(answer, last_words(answer))
        return {key: value for key, value in said(answer, not_deployed(self.variables)).items() if key != "rc"}


def said(answer: dict[str, Any], reason: str) -> dict[str, Any]:
    """Return the answer with a reason; Ansible's own, "non-zero return code", would be shown first."""
    return {key: value for key, value in answer.items() if key != "exception"} | {"msg": reason}


def last_words(answer: dict[str, Any]) -> str:
    """Return how a command ended, and the end of what it said."""
    lines = [*answer.get("stdout_lines", []), *answer.get("stderr_lines", [])][-10:]
    return f"status {answer['rc']}, {' / '.join(lines) or 'nothing said'}"


def check_failed(variable: str, command: str, why: str) -> str:
    """Return what to say of the application's own check, which ended as `why` says."""
    return (
        f"{variable}: {command} failed: {why}. What runs was left as it is. Correct the command or what it checks, "
        "then type: ansible-playbook playbooks/check.yml"
    )


def not_deployed(variables: Variables) -> str:
    """Return what to say where the application's commands are missing."""
    return (
        f"{variables['celery_app_name']} was not deployed on {variables['inventory_hostname']} yet, or its release is "
        "damaged. Type: ansible-playbook playbooks/site.yml"
    )
