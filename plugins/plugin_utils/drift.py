"""What differs between the hosts and the inventory: the tasks of site.yml that would change something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

from ansible import context
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import COLLECTION, playbook

PROMPTS = ("ask_pass", "become_ask_pass", "ask_vault_pass")
SHOWN = {
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_NOCOLOR": "true",
    "ANSIBLE_DIFF_ALWAYS": "false",
    "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "false",
    "ANSIBLE_CHECK_MODE_MARKERS": "false",
}
"""The environment in which ansible-playbook prints what is read here, whatever the configuration says."""
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.*)\] \*+$")
RESULT = re.compile(r"^(changed|fatal|failed): \[([^\]\s]+)")
LOOK = "ansible-playbook playbooks/site.yml --check --diff"


def differences() -> list[dict[str, str]]:
    """Return `host` and `task` of each thing that site.yml would change now.

    It is this run's own command line, with site.yml in check mode in its playbook's place, so inventory, variables,
    vault and limit are the same. Raises OperatorError where that run can't be made, or fails.
    """
    given = context.CLIARGS
    if any(given.get(one) for one in PROMPTS) or any("prompt" in str(one) for one in given.get("vault_ids") or ()):
        raise OperatorError(
            f"status_drift: a password that was typed can't be passed on to the comparison. Type: {LOOK}"
        )
    words = [word for word in sys.argv[1:] if word not in {*given["args"], "-D", "--diff"}]
    command = [sys.argv[0], *words, "--check", "--skip-tags", "check", playbook("site")]
    # In a session of its own, nothing can ask for a password at the terminal.
    done = subprocess.run(
        command,
        env={**os.environ, **SHOWN},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    found = list(results(done.stdout))
    if done.returncode:
        failed = [f" at {one['task']!r} on {one['host']}" for one in found if one["result"] != "changed"]
        failed += [f": {line}" for line in done.stderr.splitlines()[:1]]
        raise OperatorError(
            f"site.yml in check mode ended with status {done.returncode}{''.join(failed[:1])}. Look: {LOOK}"
        )
    changes = [{"host": one["host"], "task": one["task"]} for one in found if one["result"] == "changed"]
    return [one for number, one in enumerate(changes) if one not in changes[:number]]


def results(said: str) -> Iterator[dict[str, str]]:
    """Yield `result`, `host` and `task` of each change and failure in what ansible-playbook printed."""
    task = ""
    for line in said.splitlines():
        if named := TASK.match(line):
            task = named[1].removeprefix(f"{COLLECTION}.")
        elif result := RESULT.match(line):
            yield {"result": result[1], "host": result[2], "task": task}


def problem(drift: list[dict[str, str]], host: str) -> dict[str, str]:
    """Return what differs on a host as one of the status's problems."""
    tasks = [one["task"] for one in drift if one["host"] == host]
    return {
        "host": host,
        "problem": f"It differs from the inventory, site.yml would change: {'; '.join(tasks)}",
        "fix": f"Show it: {LOOK}",
    }
