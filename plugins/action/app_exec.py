"""Run a command of the operator's in the release that is live, as the application, on one host or on all."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS, boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import migrate_host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import is_first, results_of, said

RESULT = "__celery_app_exec"
SHELL = ["/bin/bash", "-c"]
ON = ("one", "all")
_PLAIN = re.compile(r"[\w./:-]+")


class ActionModule(AppCommand):
    """With `state: outcome`, say how it ended on each host, and fail where it failed on one."""

    def act(self) -> dict[str, Any]:
        """Return the command's answer, with `text` to show and `what` for the audit log."""
        variables = self.variables
        if self._task.args.get("state") == "outcome":
            return outcome(results_of(variables, RESULT))
        words = words_of(variables)
        if variables["celery_app_exec_on"] == "one" and not is_first(variables, migrate_host(variables)):
            return {"changed": False, "skipped": True, "skip_reason": "it runs on one host"}
        host = variables["inventory_hostname"]
        if self._task.check_mode:
            return {"changed": True, "text": f"{host}: would run, as {variables['celery_app_name']}: {shown(words)}"}
        answer = self.as_app(words)
        if answer.get("failed") and "rc" not in answer:
            return answer
        lines = [*answer.get("stdout_lines", []), *answer.get("stderr_lines", [])]
        answer |= {
            "changed": True,
            "failed": False,
            "text": "\n".join([f"{host}: status {answer['rc']}", *lines]),
            "what": [named(words)],
        }
        # Ansible would show a status that is not 0 as an error, and the way into the environment.
        return {key: value for key, value in answer.items() if key not in ("cmd", "msg", "exception")}


def words_of(variables: Mapping[str, Any]) -> list[str]:
    """Return the words to run. Raises OperatorError for none, and for what no shell could read."""
    line, on = str(variables["celery_app_exec"]).strip(), str(variables["celery_app_exec_on"])
    if not line.strip("'\""):
        raise OperatorError(
            "celery_app_exec is empty: it has to be the command to run. Type: ansible-playbook playbooks/exec.yml "
            "-e \"celery_app_exec='manage.py check'\""
        )
    if on not in ON:
        raise OperatorError(f"celery_app_exec_on is {on!r}: it has to be one or all.")
    shell = str(variables["celery_app_exec_shell"]).lower()
    if shell not in BOOLEANS:
        raise OperatorError(f"celery_app_exec_shell is {shell!r}: it has to be true or false. Nothing was run.")
    if boolean(shell):
        return [*SHELL, line]
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OperatorError(
            f"celery_app_exec can't be split into words ({error}). Nothing was run. Close the quote, or add "
            "-e celery_app_exec_shell=true to have bash read the line"
        ) from None
    return ["python", *words] if words[0] == "manage.py" else words


def shown(words: list[str]) -> str:
    """Return the command as it would be typed."""
    return words[-1] if words[:2] == SHELL else shlex.join(words)


def named(words: list[str]) -> str:
    """Return what the audit log says of a command: its first words, as far as they can't be a secret."""
    if words[:2] == SHELL:
        return "a shell line"
    named = []
    for word in words[:3] if words[0] == "python" else words[:2]:
        if word.startswith("-") or not _PLAIN.fullmatch(word):
            break
        named.append(word)
    return " ".join(named) or "a command"


def outcome(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one line on how the command ended on each host; failed where one of them is not 0."""
    ended = {host: result["rc"] for host, result in results.items() if "rc" in result}
    line = "exec: " + (", ".join(f"status {rc} on {host}" for host, rc in ended.items()) or "nothing was run")
    return said(line, failed=any(ended.values()))
