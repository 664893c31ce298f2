"""Send celery_app_notify's targets a notice of a deploy or rollback, and never fail for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.celery_ops.kit.plugins.module_utils import notices
from ansible_collections.celery_ops.kit.plugins.module_utils.notices import Notice
from ansible_collections.celery_ops.kit.plugins.plugin_utils import changes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, release_of_run
from ansible_collections.celery_ops.kit.plugins.plugin_utils.outcome import failure_summary, failures
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor, run_id
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node. Its event may be V(ended): finished, or failed where a phase has."""

    def act(self) -> dict[str, Any]:
        """Return which targets got no notice, and why; in check mode nothing is sent."""
        variables = self.variables
        targets = targets_of(variables)
        if not targets or self._task.check_mode:
            return {"changed": False, "skipped": True}
        try:
            notice = notice_of(str(self._task.args["event"]), variables, str(self._task.args.get("detail") or ""))
            if notice.event != "started":
                notices.mark_ended(run_id(os.getppid()))
            problems = notices.send_all(targets, notice)
        except Exception as error:
            problems = [f"No notice was sent: {type(error).__name__}."]
        for problem in problems:
            Display().warning(problem)
        return {"changed": False, "problems": problems, "sent": len(targets) - len(problems)}


def targets_of(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the targets; none where there are none or where they are not what they have to be."""
    given = variables.get("celery_app_notify") or []
    return [dict(target) for target in given if isinstance(target, Mapping)] if isinstance(given, list) else []


def notice_of(event: str, variables: Variables, detail: str = "") -> Notice:
    """Return the notice of an event in this run."""
    found = failures(variables) if event == "ended" else []
    action = str(variables.get("__celery_action") or "deploy")
    built = variables.get(BUILD) or {}
    if event == "ended":
        event = "failed" if found else "rolled_back" if action == "rollback" else "finished"
    if found:
        restored = variables["celery_app_on_failure"] == "rollback"
        detail = f"{failure_summary(found).rstrip('.')}. " + (
            "The previous deployment was restored where it could be." if restored else "What was handed over stays."
        )
    elif built.get("interrupted") and not detail:
        detail = f"Before: {built['interrupted']}."
    return Notice(
        event=event,
        app=str(variables["celery_app_name"]),
        who=actor(variables),
        action=action,
        release=release_of_run(variables),
        stage=str(variables["celery_app_stage"]),
        hosts=list(variables["ansible_play_hosts_all"]),
        detail=detail,
        changes=changes.of_run(variables) if event in ("finished", "failed") else [],
    )
