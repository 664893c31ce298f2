"""Fail a deploy with what its phases saw, and say what runs now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, release_of_run
from ansible_collections.celery_ops.kit.plugins.plugin_utils.outcome import failures


def message(
    release: str,
    failures: Sequence[Mapping[str, Any]],
    on_failure: str,
    before: Mapping[str, str],
    stuck: Mapping[str, str],
) -> str:
    """Return the deploy's last words.

    `before` is the release that ran before by host, "" for none; `stuck` says why a host could not be rolled back.
    """
    lines = [f"The deploy of release {release} failed." if release else "The deploy failed."]
    for failure in failures:
        place = f"{failure['phase'] or 'connection'} on {failure['host']}"
        program = f", program {failure['program']}" if failure["program"] else ""
        task = f" ({failure['task']})" if failure["task"] else ""
        lines.append(f"- {place}{program}{task}: {failure['reason']}")
    if on_failure == "keep":
        lines.append(
            "celery_app_on_failure is keep: what was handed over stays. Deploy a release that works, or roll back: "
            "ansible-playbook playbooks/rollback.yml"
        )
        return "\n".join(lines)
    lost = [failure["host"] for failure in failures if not failure["phase"]]
    stuck = {host: reason for host, reason in stuck.items() if host not in lost}
    for host, reason in stuck.items():
        lines.append(f"{host} could not be rolled back: {reason} Type: ansible-playbook playbooks/rollback.yml")
    for host in lost:
        lines.append(f"{host} is unreachable: once it is back, type: ansible-playbook playbooks/rollback.yml")
    fine = {host: release for host, release in before.items() if host not in stuck and host not in lost}
    for previous in sorted(set(fine.values())):
        hosts = ", ".join(host for host, release in fine.items() if release == previous)
        lines.append(
            f"Restored to the previous deployment (release {previous}): {hosts}. Its migrations, if it ran any, stay."
            if previous
            else f"Nothing runs on {hosts}: there was no deployment before."
        )
    return "\n".join(lines)


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node."""

    def act(self) -> dict[str, Any]:
        """Fail on the hosts that failed; where none of them is left, on all."""
        variables = self.variables
        seen, mine = failures(variables), variables["inventory_hostname"]
        if not seen:
            return {"changed": False, "skipped": True}
        hosts = {host: variables["hostvars"][host] for host in variables["ansible_play_hosts_all"]}
        reached = {failure["host"] for failure in seen if failure["phase"]}
        if reached and mine not in reached:
            return {"changed": False}
        built = {host: known[BUILD] for host, known in hosts.items() if BUILD in known}
        before = {host: build.get("previous", "") for host, build in built.items() if "previous" in build}
        stuck = {
            host: known["__celery_app_restore_failure"]
            for host, known in hosts.items()
            if "__celery_app_restore_failure" in known
        }
        return {
            "failed": True,
            "msg": message(release_of_run(variables), seen, str(variables["celery_app_on_failure"]), before, stuck),
        }
