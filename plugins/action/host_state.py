"""Render a role's templates on the control node, and run the module of the same name, which takes the steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import lookup_loader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action


def wanted(steps: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the steps that are to be taken, with those of a step that is a list of them in its place."""
    for step in steps:
        if boolean(step.get("when", True), strict=False):
            later = {"later": True} if step.get("later") else {}
            yield from ({**each, **later} for each in wanted(step["steps"])) if "steps" in step else (step,)


class ActionModule(Action):
    """Gives the module the steps of this host, with the texts of their files."""

    def act(self) -> dict[str, Any]:
        """Return the module's own answer."""
        steps = [self.rendered(step) for step in wanted(self._task.args["steps"])]
        return self.run_module({"steps": steps}, in_journal=False)

    def rendered(self, step: dict[str, Any]) -> dict[str, Any]:
        """Return a step with the text of its template."""
        if "template" not in step:
            return step
        known = {key: value for key, value in step.items() if key not in ("template", "hidden")}
        lookup = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        [text] = lookup.run([step["template"]], variables=self.task_vars)
        return known | {"secret" if step.get("hidden") else "content": text}
