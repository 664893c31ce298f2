"""Refuse to generate passwords for a host that has some already: the directory with them has been lost."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action

# Names of the variables in the application's environment, and whether the broker knows the application.
LOOK = """
sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\1/p' {file} 2>/dev/null
if {broker}; then
  PATH=$PATH:/usr/sbin rabbitmqctl -q list_users 2>/dev/null | cut -f 1 |
    grep -qxE {app}'(-2)?' && echo CELERY_BROKER_URL
fi
true
"""


class ActionModule(Action):
    """Looks at a host by its shell alone: it may have no Python yet."""

    def act(self) -> dict[str, Any]:
        """Fail where the host has one of the passwords; change nothing."""
        app, files, directory = (self._task.args[name] for name in ("app", "files", "directory"))
        file = str(Layout(app).environment_link)
        asks_broker = self._task.args["broker"] and "CELERY_BROKER_URL" in files
        command = LOOK.format(file=shlex.quote(file), app=shlex.quote(app), broker="true" if asks_broker else "false")
        there = set(self._low_level_execute_command(command)["stdout"].split())
        lost = [name for name in files if name in there]
        if not lost:
            return {"changed": False}
        lines = [
            f"{directory} on the control node has lost the secrets of {app}, and this host has them: "
            f"{', '.join(lost)}. With new ones its programs could not log in any more. Nothing was changed.",
            f"Restore the directory from your backup: {' '.join(files[name] for name in lost)}",
            f"Or take them from this host: grep -E '^({'|'.join(lost)})=' {file}; of a URL only the password, "
            "between the second : and the @. Write each into its file (chmod 600).",
            "To make new ones, type: ansible-playbook playbooks/site.yml -e celery_app_rotate_credentials=yes",
        ]
        return {"failed": True, "msg": "\n".join(lines)}
