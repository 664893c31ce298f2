"""Render every program's conf, name its generation by the content's hash, and hand all to the module at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.template import generate_ansible_template_vars, trust_as_template
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import HostModule

GENERATION = "@GENERATION@"


def with_generation(value: Any, generation: str) -> Any:
    """`value` with the placeholder replaced, in lists and strings."""
    if isinstance(value, list):
        return [with_generation(item, generation) for item in value]
    return value.replace(GENERATION, generation) if isinstance(value, str) else value


class ActionModule(HostModule):
    """Runs on the control node, then the module of the same name on the host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result. A generation is the release plus the settings that its program runs with."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        template, log_folder = arguments.pop("template", None), arguments.pop("log_folder", None)
        if arguments.get("state", "present") == "present":
            prefixes = arguments["family_prefix"]
            prefixes = [prefixes] if isinstance(prefixes, str) else prefixes
            arguments["programs"] = [
                self.render(program, str(template), str(log_folder), prefixes, task_vars or {})
                for program in arguments.get("programs", [])
            ]
        return self.call(arguments, task_vars)

    def render(
        self, program: dict[str, Any], template: str, log_folder: str, prefixes: list[str], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """One program as the module takes it: its command became a conf, and its name has a generation."""
        if not Path(template).is_file():
            raise AnsibleActionFail(f"supervisor_programs: there is no template {template}.")
        name = f"{program['family']}-{GENERATION}"
        log = f"{log_folder}/{name}.log"
        prefix = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default="")
        known = generate_ansible_template_vars(template, fullpath=template)
        variables = {
            **task_vars,
            **known,
            "program": {**program, "name": name, "log": log, "family_prefix": prefix},
        }
        conf = self._templar.copy_with_new_env(available_variables=variables).template(
            trust_as_template(Path(template).read_text()), preserve_trailing_newlines=True
        )
        whole = conf + json.dumps([program["ready"], program["stop_timeout"]])
        generation = hashlib.sha256(whole.encode()).hexdigest()[:8]
        rest = {key: value for key, value in program.items() if key != "command"}
        rendered = {**rest, "name": name, "conf": conf, "log": log}
        return {key: with_generation(value, generation) for key, value in rendered.items()}
