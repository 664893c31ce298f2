"""Bring a packed source to a host, only where the release is not there yet, and build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Transfers the archive and the runtime's wheel before the module of the same name runs."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result; in check mode nothing is transferred."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "built") != "built":
            return self._execute_module(module_args=arguments, task_vars=task_vars)

        # Without the files the module answers what it finds: "built" already, or still to do.
        local = {name: Path(arguments.pop(name)) for name in ("archive", "wheel")}
        found = self._execute_module(module_args=arguments, task_vars=task_vars)
        if found.get("failed") or not found.get("changed") or self._task.check_mode:
            return found
        folder = Path(self._make_tmp_path())
        for name, path in local.items():
            arguments[name] = self._transfer_file(str(path), str(folder / path.name))
        try:
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(str(folder))
