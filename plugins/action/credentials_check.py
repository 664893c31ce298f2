"""Refuse to generate secrets for a host that has some already: the directory with them has been lost."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import AUTHORITIES, Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import authorities_in
from ansible_collections.celery_ops.kit.plugins.plugin_utils.root_shell import as_root

# Names of the variables in the application's environment, and whether the broker knows the application.
LOOK = """
sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\1/p' {file} 2>/dev/null
if {broker}; then
  PATH=$PATH:/usr/sbin rabbitmqctl -q list_users 2>/dev/null | cut -f 1 |
    grep -qxE {app}'(-2)?' && echo CELERY_BROKER_URL
fi
"""


ANEW = "ansible-playbook playbooks/site.yml -e celery_app_rotate_credentials=yes"


class ActionModule(Action):
    """Looks at a host by its shell alone: it may have no Python yet."""

    def act(self) -> dict[str, Any]:
        """Fail where the host has one of the secrets; change nothing.

        A host outside the run that is down can't say what it has, and keeps nobody from the run.
        """
        try:
            problems = [*self.passwords(), *self.authority()]
        except AnsibleConnectionFailure:
            if not self._task.delegate_to:
                raise
            return {"changed": False}
        return {"failed": True, "msg": "\n".join(problems)} if problems else {"changed": False}

    def passwords(self) -> list[str]:
        """Return what to say of passwords, and secrets of the application, that the host has; nothing of none."""
        app, files, directory = (self._task.args[name] for name in ("app", "files", "directory"))
        file = str(Layout(app).environment_link)
        asks_broker = self._task.args["broker"] and "CELERY_BROKER_URL" in files
        command = LOOK.format(file=shlex.quote(file), app=shlex.quote(app), broker="true" if asks_broker else "false")
        there = set(self.output_of(command).split()) if files else set()
        if not (lost := [name for name in files if name in there]):
            return []
        return [
            f"{directory} on the control node has lost the secrets of {app}, and this host has them: "
            f"{', '.join(lost)}. With new ones its programs could not log in any more. Nothing was changed.",
            f"Restore the directory from your backup: {' '.join(files[name] for name in lost)}",
            f"Or take them from this host: grep -E '^({'|'.join(lost)})=' {file}; of a URL only the password, "
            "between the second : and the @. Write each into its file (chmod 600).",
            f"To make new ones, type: {ANEW}",
        ]

    def authority(self) -> list[str]:
        """Return what to say of the kit's CA where the host has one and the control node has none."""
        sought = self._task.args.get("authority") or {}
        found = {
            file: authorities_in(self.output_of(f"cat {shlex.quote(file)}")) for file in sought.get("installed", [])
        }
        there = [f"{', '.join(names)} ({file})" for file, names in found.items() if names]
        if not there:
            return []
        missing, services = sought["missing"], {str(path) for path in AUTHORITIES.values()}
        lines = [
            f"The control node has lost {' and '.join(missing)}, the CA of broker and result store, and this host has "
            f"one of the kit's: {'; '.join(there)}. It would refuse what a new one signs. Nothing was changed.",
            f"Restore the directory from your backup: {Path(missing[-1]).parent}",
        ]
        if not any(names for file, names in found.items() if file not in services):
            lines.append(
                "Or, where another inventory has set up the service here: celery_app_tls_directory: <its directory>"
            )
        return [
            *lines,
            "If it is lost for ever, let a new one take its place; until this run has given it to a host's programs, "
            f"they can't connect anew: {ANEW}",
        ]

    def output_of(self, command: str) -> str:
        """Return what a command prints on the host, whatever its exit status."""
        return str(as_root(self, f"{command}\ntrue")["stdout"])
