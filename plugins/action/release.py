"""Bring a packed source to a host, only where the release is not there yet, and build it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Transfers the archive before the module of the same name runs."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result; in check mode nothing is transferred."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "built") != "built":
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        archive = Path(arguments.pop("archive"))
        if self._task.check_mode or self.is_built(arguments):
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        folder = Path(self._make_tmp_path())
        try:
            arguments["archive"] = self._transfer_file(str(archive), str(folder / archive.name))
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(str(folder))

    def is_built(self, arguments: dict[str, Any]) -> bool:
        """Whether the host has this release; the module judges for itself, this only saves the transfer."""
        base = arguments.get("base") or f"/srv/{arguments['app']}"
        note = shlex.quote(f"{base}/releases/{arguments['id']}/release.json")
        found = self._low_level_execute_command(f"cat {note}")
        return found["rc"] == 0 and json.loads(found["stdout"])["status"] in ("built", "good")
