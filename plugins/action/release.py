"""Bring a packed source to a host, only where the release is not there yet, and build, activate or record it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.action.deploy_notice import targets_of
from ansible_collections.celery_ops.kit.plugins.module_utils import notices
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout, Release
from ansible_collections.celery_ops.kit.plugins.plugin_utils import changes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import (
    BUILD,
    SOURCE,
    TARGET,
    Deployment,
    lines_of,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import environment_of, environment_text
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import runs_nothing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import HostModule
from ansible_collections.celery_ops.kit.plugins.plugin_utils.migration import migration, outside
from ansible_collections.celery_ops.kit.plugins.plugin_utils.outcome import failure_summary, failures
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import prefixes_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables, schedulers, worker_programs


class ActionModule(HostModule):
    """Makes the module's arguments of the variables, and transfers the archive before the module runs."""

    def act(self) -> dict[str, Any]:
        """The module's own result; in check mode nothing is transferred."""
        variables = self.variables
        arguments = dict(self._task.args)
        state = arguments.setdefault("state", "built")
        arguments |= made_of(state, variables)
        if state == "migrated" and not (arguments.get("migrate") or arguments.get("seed")):
            return {"changed": False, "skipped": True}
        if state != "built":
            return self.call(arguments)
        # A text: of a secret dictionary Ansible masks each value, and a "1" is everywhere.
        secret = arguments.get("install_environment")
        if secret and not isinstance(secret, Mapping):
            raise AnsibleActionFail(
                "celery_app_install_environment (not shown) has to be a mapping of names to values."
            )
        arguments["install_environment"] = json.dumps(secret) if secret else ""
        archive = Path(arguments.pop("archive"))
        place = "" if self._task.check_mode else self.place(arguments)
        if place:
            arguments["archive"] = self._transfer_file(str(archive), place)
        answer = self.call(arguments)
        if answer.pop("needs_archive", False):
            arguments["archive"] = self._transfer_file(str(archive), self.room())
            answer = self.call(arguments)
        more = {"hook_environment": Deployment.of_run(variables).hook_environment, "alone": is_alone(variables)}
        return answer | more

    def place(self, arguments: dict[str, Any]) -> str:
        """An empty file on the host for the archive, which the module removes; none where the release is built.

        The module judges for itself; this only saves the transfer, and asks in one go, as round trips add up.
        """
        base = Path(arguments.get("base") or Layout(arguments["app"]).base)
        note = shlex.quote(str(Release(base / "releases" / arguments["id"]).state_file))
        return self.room(f"""grep -qsE '"status": "(built|good)"' {note} || """)

    def room(self, unless: str = "") -> str:
        """An empty file on the host, of whoever logs in, not of root: it is they who write it."""
        answer = self._low_level_execute_command(f"{unless}mktemp", sudoable=False)
        if answer["rc"]:
            raise AnsibleActionFail(f"release: no room for the source on the host.\n{answer['stderr'].strip()}")
        return answer["stdout"].strip()


def made_of(state: str, variables: Variables) -> dict[str, Any]:
    """Return those of the module's arguments that are made of the variables."""
    if state == "history":
        return {}
    made: dict[str, Any] = {"actor": actor(variables)}
    target, source = variables.get(TARGET) or {}, variables.get(SOURCE) or {}
    if state == "failed":
        return made if target else made | {"deployment": source.get("deployment", ""), **failure(variables)}
    deployment = Deployment.of_run(variables)
    made["environment_file"] = str(deployment.environment_file)
    if state == "active":
        built = (variables.get(BUILD) or {}).get("seconds")
        seconds = variables.get("__celery_app_seconds") or {}
        made["seconds"] = {**seconds, **({} if built is None else {"release": built})}
        if awaited := (variables.get("__celery_app_handover") or {}).get("awaited"):
            made |= {"draining": awaited, "drain_wait": variables["celery_app_drain_wait"]}
            made["program_prefixes"] = prefixes_of(variables, "all")
        return made | {
            "deployment": target["deployment"] if target else source["deployment"],
            "previous": target.get("previous", ""),
            "commits": [] if target else changes.of_run(variables),
            "migrated": [] if target else lines_of(variables["celery_app_migrate_command"]),
        }
    if state == "built":
        if problem := runs_nothing(variables):
            raise OperatorError(problem)
        made["environment_text"] = environment_text(environment_of(variables))
        made["notify_text"] = notify_text(variables)
        made["pools"] = sorted({str(entry.get("pool", "prefork")) for entry in worker_programs(variables)})
        made["default_concurrency"] = any(
            not {"concurrency", "autoscale"} & entry.keys() for entry in worker_programs(variables)
        )
        made["queues"] = sorted({str(one) for entry in worker_programs(variables) for one in entry.get("queues") or []})
        made["has_scheduler"] = bool(schedulers(variables)) and boolean(variables["celery_scheduler_enabled"])
        made["verify_clients"] = boolean(variables["celery_app_tls_verify_clients"])
        made["command_lines"] = list(command_lines(variables, made["has_scheduler"]))
        made["commands"] = deployment.commands_as_app(variables["celery_app_build_commands"])
    # One host migrates; where it is alone, and there is nobody to ask first, in one go with the building.
    alone = is_alone(variables) and variables.get("celery_app_deploy") != "stop" and not outside(variables)
    if not target and alone == (state == "built"):
        made |= migration(deployment, variables)
    return made


def command_lines(variables: Variables, has_scheduler: bool) -> Iterator[dict[str, Any]]:
    """Yield the options that the inventory gives to programs, for Celery's own parser; nothing where there are none."""
    programs = variables["celery_worker_programs"] if "worker" in variables["group_names"] else []
    lines = [("worker", f"celery_worker_programs, {one['name']}", one.get("options")) for one in programs]
    lines += [("beat", "celery_scheduler_options", variables["celery_scheduler_options"])] if has_scheduler else []
    for command, about, words in lines:
        if words:
            yield {"command": command, "about": about, "words": list(map(str, words))}


def is_alone(variables: Variables) -> bool:
    """Whether the run has one host."""
    return len(variables["ansible_play_hosts_all"]) == 1


def notify_text(variables: Variables) -> str:
    """Return the file of those who are told what the watchdog did; "" for nobody."""
    targets = notices.of_hosts(targets_of(variables))
    about = {"app": variables["celery_app_name"], "host": variables["inventory_hostname"], "targets": targets}
    return json.dumps(about | {"stage": str(variables["celery_app_stage"])}) if targets else ""


def failure(variables: Variables) -> dict[str, Any]:
    """Return what is recorded of a deploy that failed."""
    seen = failures(variables)
    restored = variables["celery_app_on_failure"] == "rollback" and "__celery_app_restore_failure" not in variables
    return {
        "reason": failure_summary(seen),
        "release_fault": any(each["release_fault"] for each in seen),
        "taken_back": restored,
    }
