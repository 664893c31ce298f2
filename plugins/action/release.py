"""Bring a packed source to a host, only where the release is not there yet, and build it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout, Release
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import HostModule


class ActionModule(HostModule):
    """Transfers the archive before the module of the same name runs."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result; in check mode nothing is transferred."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "built") == "built":
            # A text: of a secret dictionary Ansible masks each value, and a "1" is everywhere.
            secret = arguments.get("install_environment")
            if secret and not isinstance(secret, Mapping):
                raise AnsibleActionFail(
                    "celery_app_install_environment (not shown) has to be a mapping of names to values."
                )
            arguments["install_environment"] = json.dumps(secret) if secret else ""
            archive = Path(arguments.pop("archive"))
            place = "" if self._task.check_mode else self.place(arguments)
            if place:
                arguments["archive"] = self._transfer_file(str(archive), place)
        answer = self.call(arguments, task_vars)
        if answer.pop("needs_archive", False):
            arguments["archive"] = self._transfer_file(str(archive), self.room())
            answer = self.call(arguments, task_vars)
        return answer

    def place(self, arguments: dict[str, Any]) -> str:
        """An empty file on the host for the archive, which the module removes; none where the release is built.

        The module judges for itself; this only saves the transfer, and asks in one go, as round trips add up.
        """
        base = Path(arguments.get("base") or Layout(arguments["app"]).base)
        note = shlex.quote(str(Release(base / "releases" / arguments["id"]).state_file))
        return self.room(f"""grep -qsE '"status": "(built|good)"' {note} || """)

    def room(self, unless: str = "") -> str:
        """An empty file on the host, of whoever logs in, not of root: it is they who write it."""
        answer = self._low_level_execute_command(f"{unless}mktemp", sudoable=False)
        if answer["rc"]:
            raise AnsibleActionFail(f"release: no room for the source on the host.\n{answer['stderr'].strip()}")
        return answer["stdout"].strip()
