"""Install Python on a host that has none: minimal images of Debian come without, and no module runs before."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import PYTHON
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.root_shell import as_root


class ActionModule(Action):
    """Looks at a host by its shell alone."""

    def act(self) -> dict[str, Any]:
        """Install Debian's Python where it is missing, unless the inventory names another one for Ansible."""
        is_missing = "missing" in as_root(self, f"test -x {PYTHON} || echo missing")["stdout"].split()
        if not is_missing or self.variables.get("ansible_python_interpreter", PYTHON) != PYTHON:
            return {"changed": False}
        if self._task.check_mode:
            raise OperatorError(
                "This host has no Python, which site.yml installs. Without it --check can't look further. Type: "
                "ansible-playbook playbooks/site.yml, or on the host: apt-get install python3"
            )
        done = as_root(self, f"({self._task.args['script']}\n) 2>&1; echo ended with $?")
        *said, end = done["stdout"].rstrip().splitlines() or [""]
        if end.strip() != "ended with 0":
            tail = "\n".join(line.rstrip() for line in said[-20:])
            raise OperatorError(f"Python could not be installed. Type on the host: apt-get install python3\n{tail}")
        return {"changed": True, "msg": "Installed python3, which uninstall.yml leaves there"}
