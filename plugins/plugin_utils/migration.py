"""Which commands migrate and seed, and whether the application is in service already: its data are seeded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import Deployment, builds, lines_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import members_of_app

ELSEWHERE = "__celery_app_elsewhere"
"""What the hosts that `to_ask` names have answered, as an earlier task of the run registered it."""


def migration(deployment: Deployment, variables: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the commands that migrate and seed, on the host that does. Raises OperatorError, see `in_service`."""
    if variables["inventory_hostname"] != variables["celery_app_migrate_host"]:
        return {"migrate": [], "seed": []}
    seed = deployment.commands_as_app(variables["celery_app_seed_command"])
    lines = lines_of(variables["celery_app_migrate_command"])
    return {
        "migrate": [{"line": line, "words": words} for line in lines for words in deployment.commands_as_app(line)],
        "seed": [] if not seed or in_service(variables) else seed,
    }


def in_service(variables: Mapping[str, Any]) -> bool:
    """Whether another host has a release in service: the one that migrates is a new one.

    Raises OperatorError where nobody that can be reached has one, and a host cannot be reached.
    """
    asked = (variables.get(ELSEWHERE) or {}).get("results", [])
    if runs_in_run(variables) or any(one.get("release") for one in asked):
        return True
    if silent := [str(one["item"]) for one in asked if one.get("lost") or one.get("unreachable")]:
        raise OperatorError(
            f"celery_app_seed_command would load data into {variables['celery_app_name']}, which may be in service: "
            f"{', '.join(silent)}, left out by --limit, can't be reached. Nothing was migrated. Type the same when it "
            "can be reached; or, to load no data, add -e celery_app_seed_command="
        )
    return False


def to_ask(variables: Mapping[str, Any]) -> list[str]:
    """Return the hosts outside the run that know whether the application is in service, once those of it do not."""
    return [] if runs_in_run(variables) else outside(variables)


def outside(variables: Mapping[str, Any]) -> list[str]:
    """Return the hosts outside the run whose data this host would seed; where each has its own, each seeds itself."""
    here, known, playing = (variables[name] for name in ("inventory_hostname", "hostvars", "ansible_play_hosts_all"))
    if here != variables["celery_app_migrate_host"] or not lines_of(variables["celery_app_seed_command"]):
        return []
    others = [host for host in app_hosts(members_of_app(variables)) if host not in playing]
    return [host for host in others if str(known[host].get("celery_app_migrate_host") or here) == here]


def runs_in_run(variables: Mapping[str, Any]) -> bool:
    """Whether a host of the run has a release in service."""
    return any(build.get("previous") for build in builds(variables).values())
