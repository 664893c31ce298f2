"""Pause or resume queues, programs or all of an application, on the hosts of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import pausing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spells_commands
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    Variables,
    own_time_limits,
    worker_programs,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of, said

LOOK, RESULT = "__celery_app_pause_look", "__celery_app_pause_result"
IDLE = "__celery_app_idle"


def patience(variables: Variables) -> int:
    """Return the seconds after which no task can run any more that was begun before the pause."""
    limits = own_time_limits(worker_programs(variables))
    return layout.stop_timeout(max([int(variables["celery_app_task_time_limit"]), *limits]))


def all_idle(results: Mapping[str, Mapping[str, Any]], seconds: int) -> dict[str, Any]:
    """Fail on each host where a worker of any host still runs tasks."""
    late = [f"{name} on {host}" for host, result in results.items() for name in result["late"]]
    reason = f"After {seconds} s tasks still run: {', '.join(late)}. Nothing was migrated."
    return {"changed": False, **({"failed": True, "msg": reason} if late else {})}


class ActionModule(AppCommand):
    """Reads what is paused (`look`), then changes it (`paused`, `resumed`), then says what is (`outcome`)."""

    @spells_commands
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `entries`, `workers` and `late` of this host; of an outcome, one line."""
        super().run(tmp, task_vars)
        variables = Variables(task_vars or {}, self._templar.template)
        state = self._task.args["state"]
        if state == "outcome":
            return self.outcome(variables)
        if state == "all_idle":
            return all_idle(results_of(variables, IDLE), patience(variables))
        try:
            if state == "look":
                return self.ask(["show"], variables)
            if state == "idle":
                return self.ask(["wait", "--timeout", str(patience(variables))], variables)
            looks, by = results_of(variables, LOOK), self._task.args.get("by") or ""
            if state == "paused":
                about = pausing.of_verb(variables) if by else pausing.named(variables)
                pausing.refuse_unknown_queues(variables, looks)
                given, word = pausing.entries(variables, actor(variables), about), "add"
            else:
                # What a deploy has left closed that was killed, maintenance opens.
                by = "maintenance,deploy" if by == "maintenance" else by
                given, word = [], "remove"
                if not by:
                    pausing.refuse_not_paused(variables, looks)
                    about = [] if pausing.is_about_all(variables) else pausing.named(variables)
                    given = [{"what": what, "name": name} for what, name in about]
        except OperatorError as error:
            return {"failed": True, "msg": str(error)}
        there = looks[variables["inventory_hostname"]]["entries"]
        what = pausing.changed_words(given or [one for one in there if one.get("by", "") in by.split(",")])
        if self._task.check_mode:
            return {**looks[variables["inventory_hostname"]], "changed": bool(what), "what": what}
        answer = self.ask([word, json.dumps(given), "--by", by], variables)
        return answer | {"what": what if answer.get("changed") else []}

    def ask(self, words: list[str], variables: Variables) -> dict[str, Any]:
        """Return what celery-ops-pause prints."""
        answer = self.as_app(["celery-ops-pause", *words], variables)
        if answer.get("rc") or answer.get("failed"):
            reason = str(answer.get("msg", ""))
            if "no program" in reason and "celery-ops-pause" in reason:
                reason = (
                    "The release that is live was built by a version of the kit that can't pause. Type: "
                    "ansible-playbook playbooks/deploy.yml"
                )
            return {"failed": True, "msg": reason}
        return json.loads(answer["stdout"].splitlines()[-1])

    def outcome(self, variables: Variables) -> dict[str, Any]:
        """Return the line; failed where a worker does not heed the change."""
        verb = self._task.args["verb"]
        all_hosts = pausing.whole(variables) == ("all", "")
        line, late = pausing.outcome(verb, results_of(variables, RESULT), all_hosts=all_hosts)
        if self._task.check_mode:
            whats = {one for result in results_of(variables, RESULT).values() for one in result.get("what", [])}
            line = f"{verb} (check mode): would {verb} {', '.join(sorted(whats)) or 'nothing'}. Now: {line}"
        if late:
            line += f" Not applied yet by {', '.join(late)}. Look at it: ansible-playbook playbooks/status.yml"
        return said(line, failed=bool(late))
