"""Fail a deploy with what its phases saw, and say what runs now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase


def message(
    release: str,
    failures: Sequence[Mapping[str, Any]],
    on_failure: str,
    before: Mapping[str, str],
    stuck: Mapping[str, str],
) -> str:
    """Return the deploy's last words.

    `before` is the release that ran before by host, "" for none; `stuck` are the hosts that could not go back and why.
    """
    lines = [f"The deploy of release {release} failed." if release != "current" else "The deploy failed."]
    for failure in failures:
        place = f"{failure['phase'] or 'connection'} on {failure['host']}"
        program = f", program {failure['program']}" if failure["program"] else ""
        task = f" ({failure['task']})" if failure["task"] else ""
        lines.append(f"- {place}{program}{task}: {failure['reason']}")
    if on_failure == "keep":
        lines.append(
            "celery_app_on_failure is keep: what was handed over stays. Deploy a release that works, or go back: "
            "ansible-playbook playbooks/rollback.yml"
        )
        return "\n".join(lines)
    lost = [failure["host"] for failure in failures if not failure["phase"]]
    for host, reason in stuck.items():
        lines.append(f"{host} could not go back: {reason} Type: ansible-playbook playbooks/rollback.yml")
    for host in lost:
        lines.append(f"{host} is out of reach: once it is back, type: ansible-playbook playbooks/rollback.yml")
    fine = {host: release for host, release in before.items() if host not in stuck and host not in lost}
    for previous in sorted(set(fine.values())):
        hosts = ", ".join(host for host, release in fine.items() if release == previous)
        lines.append(
            f"Back on the deployment before (release {previous}): {hosts}. Its migrations, if it ran any, stay."
            if previous
            else f"Nothing runs on {hosts}: there was no deployment before."
        )
    return "\n".join(lines)


class ActionModule(ActionBase):
    """Runs wholly on the control node."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail on the hosts that failed; where none of them is left, on all."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        failures, mine = list(self._task.args["failures"]), variables["inventory_hostname"]
        hosts = {host: variables["hostvars"][host] for host in variables["ansible_play_hosts_all"]}
        reached = {failure["host"] for failure in failures if failure["phase"]}
        if reached and mine not in reached:
            return {"changed": False}
        built = {host: known["__celery_app_build"] for host, known in hosts.items() if "__celery_app_build" in known}
        before = {host: build.get("previous", "") for host, build in built.items() if "previous" in build}
        stuck = {
            host: known["__celery_app_restore_failure"]
            for host, known in hosts.items()
            if "__celery_app_restore_failure" in known
        }
        release = (hosts[mine].get("__celery_app_source") or {}).get("id", "current")
        return {
            "failed": True,
            "msg": message(release, failures, str(self._task.args["on_failure"]), before, stuck),
        }
