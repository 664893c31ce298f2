"""Build an application's programs from its variables, and hand over to them on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.template import Templar, generate_ansible_template_vars, trust_as_template
from ansible.utils.display import Display
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import PROGRAMS_OF, Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, TARGET, Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import HostModule
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import (
    LEFT,
    Program,
    Programs,
    deploy_phase,
    generation_of,
    lacks_queues,
    prefixes_of,
    supervisor_command,
    to_restart,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables

TEMPLATE = Path(__file__).resolve().parents[2] / "templates/supervisor/program.conf.j2"


class ActionModule(HostModule):
    """Builds and renders on the control node, then runs the module supervisor_programs on the host."""

    MODULE = "celery_ops.kit.supervisor_programs"

    def act(self) -> dict[str, Any]:
        """Return the module's result for the programs of one phase."""
        variables = self.variables
        state, phase = self._task.args.get("state", "deployed"), str(self._task.args["phase"])
        if state == "deployed":
            phase = (rollback_phase if variables.get(TARGET) else deploy_phase)(phase, variables)
        make = {
            "deployed": self.deployed,
            "restored": self.restored,
            "absent": self.absent,
            "restarted": self.restarted,
        }[state]
        leavers_only = bool(self._task.args.get("leavers_only"))
        everywhere = state == "absent" or leavers_only
        if not phase or is_without(phase, variables) or not prefixes_of(variables, phase, everywhere=everywhere):
            return {"changed": False, "skipped": True}
        try:
            arguments = make(phase, variables)
        except OperatorError as error:
            return {"failed": True, "msg": str(error), "release_fault": False}
        if not arguments:
            return {"changed": False, "skipped": True}
        if leavers_only:
            arguments |= of_leavers(arguments, Layout(variables["celery_app_name"]).scheduler)
        answer = self.call(arguments)
        if "producers" in arguments:  # those are waited for when the deployment is active
            told = answer.get("told", [])
            answer |= {"awaited": told, "draining": [one for one in answer.get("draining", []) if one not in told]}
        failed = answer.get("failed_program", "")
        return answer | {
            "phase": phase_of(failed, variables["celery_app_name"]) if failed and phase == "all" else phase
        }

    def deployed(self, phase: str, variables: Variables) -> dict[str, Any]:
        """Return the module's arguments for what this run brings: a release, or a rollback's target."""
        target = variables.get(TARGET) or {}
        arguments = common(phase, variables)
        if phase == LEFT and not target:
            return arguments | {"state": "absent"}
        arguments["successors_only"] = self.successors_only
        if phase == "all" and not target:
            arguments |= {"producers": producers_of(variables["celery_app_name"]), "drain_wait": 0}
        if target:
            arguments["draft"] = draft_of(target, variables)
        if target.get("deployment"):
            arguments["restore"] = target["deployment"]
        # A host that has the target's record brings back what stands there.
        if not target or variables["inventory_hostname"] in target["without_record"]:
            programs = self.programs(phase, variables, is_rollback=bool(target))
            alone = Layout(variables["celery_app_name"]).scheduler if has_one_scheduler(variables) else ""
            arguments["programs"] = [one for one in programs if one["program"] != alone]
        return arguments

    @property
    def successors_only(self) -> bool:
        """Whether programs of which nothing runs on the host are left for a later call."""
        return bool(self._task.args.get("successors_only"))

    def restored(self, phase: str, variables: Variables) -> dict[str, Any]:
        """Return the module's arguments to go back to the deployment before; without one, nothing is to run."""
        before = variables[BUILD]["deployment_before"]
        arguments = common(phase, variables)
        if not before:
            return arguments | {"state": "absent"}
        return arguments | {"restore": before, "successors_only": self.successors_only}

    def restarted(self, phase: str, variables: Variables) -> dict[str, Any]:
        """Return the module's arguments to restart those of the phase's programs that are asked for; {} for none."""
        programs = to_restart(variables, phase)
        return common(phase, variables) | {"restart": programs} if programs else {}

    def absent(self, phase: str, variables: Variables) -> dict[str, Any]:
        """Return the module's arguments to remove the phase's programs, whatever groups the host is in now."""
        return {
            "program_prefixes": prefixes_of(variables, phase, everywhere=True),
            "state": "absent",
            "volatile_dir": str(Layout(variables["celery_app_name"]).volatile_conf_dir),
        }

    def programs(self, phase: str, variables: Variables, is_rollback: bool) -> list[dict[str, Any]]:
        """Return the phase's programs as the module takes them."""
        build = variables.get(BUILD) or {}
        builders = Programs(variables, Deployment.of_run(variables), build).of(phase)
        self.refuse_unknown_queues(lacks_queues(variables, build, phase))
        prefixes = prefixes_of(variables, phase)
        listener, python = Layout(variables["celery_app_name"]).web_listener, str(build.get("python", ""))
        return [
            argument(
                program, make, prefixes, self._templar, is_rollback=is_rollback,
                python="" if program == listener else python,  # it has no virtualenv
            )
            for program, make in builders.items()
        ]  # fmt: skip

    def refuse_unknown_queues(self, entries: list[str]) -> None:
        """Raise OperatorError where the application's own queues are needed and not known; check mode says so."""
        for entry in entries:
            if not self._task.check_mode:
                raise OperatorError(
                    f"celery_worker_programs, {entry}: it has no queues, and this release can't tell the application's "
                    "own: an earlier version of the kit built it. Write: queues: [...]"
                )
            Display().warning(
                f"celery_worker_programs, {entry}: its queues are the application's own, which are known once the "
                "release is built; check mode builds none."
            )


def rollback_phase(phase: str, variables: Variables) -> str:
    """Return a rollback's phase: a host that is alone does all in one call, where what is replaced stops first."""
    if phase == LEFT or len(variables["ansible_play_hosts_all"]) > 1:
        return phase
    return "all" if phase == "producers" else ""


def producers_of(app: str) -> list[str]:
    """Return the programs that send tasks, and those that they need."""
    return [f"{app}-{name}" for group in ("scheduler", "web") for name in PROGRAMS_OF[group]] + [
        Layout(app).web_listener
    ]


def phase_of(name: str, app: str) -> str:
    """Return the phase of a deploy that hands a program over, told by the name of its generation."""
    of = [
        group for group in ("scheduler", "web") if name.startswith(tuple(f"{app}-{one}-" for one in PROGRAMS_OF[group]))
    ]
    return of[0] if of else "workers"


def of_leavers(arguments: Mapping[str, Any], scheduler: str) -> dict[str, Any]:
    """What of the module's arguments is another one where only a scheduler leaves: of whatever group the host is.

    The watchdog, which a host without workers has with its scheduler, stays out of it.
    """
    programs = [one for one in arguments.get("programs", []) if one["program"] == scheduler]
    return {"leavers_only": True, "program_prefixes": [f"{scheduler}-"], "programs": programs}


def has_one_scheduler(variables: Variables) -> bool:
    """Whether a rollback brings back a scheduler without the lease, on a host that still has it: never two."""
    alone = (variables.get(TARGET) or {}).get("lone_schedulers", [])
    return bool(set(alone) & set(variables["groups"].get("scheduler") or []))


def is_without(phase: str, variables: Variables) -> bool:
    """Whether a rollback finds no record on this host of what it ran for groups that it has left since."""
    target = variables.get(TARGET) or {}
    without = target and (not target["deployment"] or variables["inventory_hostname"] in target["without_record"])
    return phase == LEFT and bool(without)


def common(phase: str, variables: Variables) -> dict[str, Any]:
    """Return the module's arguments that do not depend on the programs."""
    return {
        "app": variables["celery_app_name"],
        "phase": phase,
        "program_prefixes": prefixes_of(variables, phase),
        "keep_logs": variables["celery_app_keep_releases"],
        "drain_wait": variables["celery_app_drain_wait"],
    }


def draft_of(target: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return what a rollback records while it is under way."""
    return {
        "id": target["id"],
        "action": "rollback",
        "target": target["deployment"],
        "release": target["release"],
        "who": actor(variables),
    }


def argument(
    program: str,
    make: Callable[[str], Program],
    prefixes: list[str],
    templar: Templar,
    *,
    is_rollback: bool = False,
    python: str = "",
) -> dict[str, Any]:
    """Return a program as the module takes it; its generation is named by the hash of its options."""
    unnamed = make(program)
    made = make(f"{program}-{generation_of(conf_of(unnamed, prefixes, templar), unnamed.ready, python)}")
    if is_rollback:  # it was healthy before
        made = replace(made, min_uptime=0, strategy=made.restore_strategy or made.strategy)
    return {
        "program": made.program,
        "name": made.name,
        "conf": conf_of(made, prefixes, templar),
        "ready": made.ready,
        "ready_timeout": made.ready_timeout,
        "min_uptime": made.min_uptime,
        "lasting_children": made.lasting_children,
        "strategy": made.strategy,
        "restore_strategy": made.restore_strategy or made.strategy,
        "stop_timeout": made.stop_timeout,
        "log": str(made.log),
        "replaces": list(made.replaces),
        "beside": made.beside,
    }


def conf_of(program: Program, prefixes: list[str], templar: Templar) -> str:
    """Return the text of a program's file in conf.d."""
    values = {
        "name": program.name,
        "owner": max((prefix for prefix in prefixes if f"{program.program}-".startswith(prefix)), key=len),
        "command": supervisor_command(program.command),
        "startsecs": program.startsecs,
        "stop_timeout": program.stop_timeout,
        "log": str(program.log),
        "syslog": program.syslog,
    }
    known = generate_ansible_template_vars(str(TEMPLATE), fullpath=str(TEMPLATE))
    return templar.copy_with_new_env(
        available_variables={**templar.available_variables, **known, "program": values}
    ).template(trust_as_template(TEMPLATE.read_text()), preserve_trailing_newlines=True)
