"""Read certificate, key and CA on the control node, and run the module of the same name, which installs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action

FILES = ("ca", "certificate", "key", "client")


class ActionModule(Action):
    """Gives the module the content of files."""

    def act(self) -> dict[str, Any]:
        """Return the module's own answer; where check mode has made no certificate yet, that they would come."""
        arguments = dict(self._task.args)
        paths = {name: Path(str(arguments[name])).expanduser() for name in FILES if arguments.get(name)}
        missing = [str(path) for path in paths.values() if not path.is_file()]
        if missing and self._task.check_mode:
            return {"changed": True}
        if missing:
            return {
                "failed": True,
                "msg": f"There is no {missing[0]} on the control node. site.yml makes it, for all hosts at once; where "
                "they have one already, restore the directory from your backup.",
            }
        arguments |= {name: path.read_text() for name, path in paths.items()}
        # Of a run that puts new secrets in the place of lost ones.
        arguments["replace"] = boolean(self.variables.get("celery_app_rotate_credentials") or False, strict=False)
        return self.run_module(arguments)
