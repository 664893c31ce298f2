"""Pause or resume queues, programs or all of an application, on the hosts of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils import pausing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import builds
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


def all_idle(results: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], seconds: int) -> dict[str, Any]:
    """Fail on each host where a worker of any of these hosts still runs tasks, or where that is not known."""
    late = [f"{name} on {host}" for host, result in results.items() for name in result["late"]]
    unknown = [host for host in hosts if host not in results]
    reasons = [f"After {seconds} s tasks still run: {', '.join(late)}."] if late else []
    reasons += [f"It is not known whether tasks still run on {', '.join(unknown)}."] if unknown else []
    if not reasons:
        return {"changed": False}
    return {"changed": False, "failed": True, "msg": " ".join([*reasons, "Nothing was migrated."])}


def to_be_idle(variables: Variables) -> list[str]:
    """Return the hosts of the run whose tasks have to end: all but those that had no deployment before."""
    return [host for host, build in builds(variables).items() if build.get("deployment_before", "?")]


class ActionModule(AppCommand):
    """Reads what is paused (`look`), then changes it (`paused`, `resumed`), then says what is (`outcome`)."""

    def act(self) -> dict[str, Any]:
        """Return `entries`, `workers` and `late` of this host; of an outcome, one line."""
        variables, state = self.variables, self._task.args["state"]
        if state == "outcome":
            return self.outcome()
        if state == "all_idle":
            return all_idle(results_of(variables, IDLE), to_be_idle(variables), patience(variables))
        if state == "look":
            return self.ask(["show"])
        if state == "idle":
            return self.ask(["wait", "--timeout", str(patience(variables))])
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
        there = looks[variables["inventory_hostname"]]["entries"]
        what = pausing.changed_words(given or [one for one in there if one.get("by", "") in by.split(",")])
        if self._task.check_mode:
            return {**looks[variables["inventory_hostname"]], "changed": bool(what), "what": what}
        answer = self.ask([word, json.dumps(given), "--by", by])
        return answer | {"what": what if answer.get("changed") else []}

    def ask(self, words: list[str]) -> dict[str, Any]:
        """Return what celery-ops-pause prints."""
        answer = self.as_app(["celery-ops-pause", *words])
        if answer.get("rc") or answer.get("failed"):
            reason = str(answer.get("msg", ""))
            if "no program" in reason and "celery-ops-pause" in reason:
                reason = (
                    "The release that is live was built by a version of the kit that can't pause. Type: "
                    "ansible-playbook playbooks/deploy.yml"
                )
            return {"failed": True, "msg": reason}
        return json.loads(answer["stdout"].splitlines()[-1])

    def outcome(self) -> dict[str, Any]:
        """Return the line; failed where a worker does not heed the change."""
        variables, verb = self.variables, self._task.args["verb"]
        all_hosts = pausing.whole(variables) == ("all", "")
        results = results_of(variables, RESULT)
        # A deploy closes and opens only the hosts that had a deployment before, and says itself which ones failed.
        hosts = [] if verb in ("stop", "open") else variables["ansible_play_hosts_all"]
        silent = [host for host in hosts if host not in results]
        line, late = pausing.outcome(verb, results, all_hosts=all_hosts, silent=silent)
        if self._task.check_mode:
            whats = {one for result in results.values() for one in result.get("what", [])}
            does = {"maintenance on": "pause", "maintenance off": "resume"}.get(verb, verb)
            line = f"{verb} (check mode): would {does} {', '.join(sorted(whats)) or 'nothing'}. Now: {line}"
        if late:
            line += f" Not applied yet by {', '.join(late)}. Look at it: ansible-playbook playbooks/status.yml"
        return said(line, failed=bool(late))
