"""Check a host, and what the control node keeps of its application."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import (
    FAIL,
    ORDER,
    SKIP,
    WARN,
    Finding,
    count,
    examine,
    files,  # noqa: F401 - it registers the checks of the control node
    text,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import (
    ANY_QUEUE,
    Control,
    Facts,
    Secret,
    Wanted,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import names_in
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members, cluster_nodes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import is_under_way
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    Variables,
    members_of_app,
    own_time_limits,
    path_of,
    schedulers,
    worker_programs,
    worker_programs_of_hosts,
)

SHOW = ("problems", "all")


class ActionModule(Action):
    """Runs the module of the same name, and the checks of the control node."""

    def act(self) -> dict[str, Any]:
        """Return the findings, a text of them, and how many of each level there are."""
        variables = self.variables
        app, accepted = variables["celery_app_name"], names_in(variables["celery_app_doctor_accept"])
        if (shown := str(variables["celery_app_doctor_show"])) not in SHOW:
            return {"failed": True, "msg": f"celery_app_doctor_show: {shown!r} is neither {' nor '.join(SHOW)}"}
        wanted = wanted_of(variables)
        arguments = {"app": app, "groups": variables["group_names"], "wanted": wanted, "accepted": accepted}
        before = time.time()
        answer = self.run_module(arguments)
        if answer.get("failed") or "findings" not in answer:
            return answer
        control = control_of(
            path_of(variables["celery_app_secrets_dir"]), app, skew(before, answer["now"], time.time())
        )
        local = examine(Facts(app, Wanted(), control=control), accepted)
        of_host = [Finding(**one) for one in answer["findings"]]
        found = merged([*of_host, *unknown(accepted, of_host)], local)
        said = text(
            [Finding(**spelled(vars(one))) for one in found], variables["inventory_hostname"], everything(variables)
        )
        counts = count(found)
        return {"changed": False, "findings": [vars(one) for one in found], "counts": counts, "text": "\n".join(said),
                "line": said[-1], "bad": counts[FAIL]}  # fmt: skip


def unknown(accepted: list[str], found: list[Finding]) -> list[Finding]:
    """Return a warning of what is accepted and is no check."""
    if not (names := sorted({*accepted} - {one.id for one in found})):
        return []
    evidence = f"there is no check {', '.join(names)}"
    return [Finding(WARN, evidence, "take it out of celery_app_doctor_accept", "celery_app_doctor_accept")]


def everything(variables: Variables) -> bool:
    """Whether also what passes is to be shown."""
    return str(variables["celery_app_doctor_show"]) == "all"


def merged(of_host: list[Finding], of_control: list[Finding]) -> list[Finding]:
    """Return one finding of each check: the control node skips those of the host, and the other way round."""
    local = {one.id: one for one in of_control if one.level != SKIP}
    found = [local.pop(one.id, one) for one in of_host]
    return sorted([*found, *local.values()], key=lambda one: ORDER.index(one.level))


def skew(before: float, there: float, after: float) -> float:
    """Return by how many seconds a clock that said `there` is ahead of one that said `before` and `after` around it."""
    if before <= there <= after:
        return 0.0
    return there - after if there > after else there - before


def wanted_of(variables: Variables) -> dict[str, Any]:
    """Return what the inventory says."""
    hosts = variables["hostvars"]
    programs = [*worker_programs(variables), *(one for each in worker_programs_of_hosts(variables) for one in each)]
    nodes = cluster_nodes(cluster_members(variables["groups"], hosts.__getitem__), hosts.__getitem__)
    # A program without queues consumes from what the application names.
    queues = {str(queue) for program in programs for queue in program.get("queues") or [ANY_QUEUE]}
    return {
        "time_limit": max([int(variables["celery_app_task_time_limit"]), *own_time_limits(programs)]),
        "queues": sorted(queues),
        "scheduler": bool(schedulers(variables)),
        "tls": boolean(variables["celery_app_tls"]),
        "nodes": len(nodes) or 1,
        "groups": members_of_app(variables),
    }


def control_of(directory: Path, app: str, ahead: float) -> Control:
    """Return what the control node keeps of an application; no secret is in it."""
    secrets = []
    for path in sorted(directory.glob(f"{app}_*")) if directory.is_dir() else []:
        if path.is_file() and path.suffix != ".old" and not path.name.endswith(("_user", "_salt")):
            seen = path.stat()
            secrets.append(
                Secret(path.name, seen.st_mode & 0o777, len(path.read_text(errors="replace").strip().split(" ")[0]),
                       (time.time() - seen.st_mtime) / 86400)
            )  # fmt: skip
    mode = directory.stat().st_mode & 0o777 if directory.is_dir() else 0o700
    return Control(str(directory), mode, tuple(secrets), taken_by_git(directory), is_under_way(directory, app), ahead)


def taken_by_git(directory: Path) -> bool:
    """Tell whether a directory is in a git work tree that does not ignore it."""
    if not directory.is_dir():
        return False
    try:
        ask = ["git", "-C", str(directory.resolve())]
        inside = subprocess.run([*ask, "rev-parse", "--is-inside-work-tree"], capture_output=True, timeout=10)
        ignored = subprocess.run(
            [*ask, "check-ignore", "-q", "--", str(directory.resolve() / "x")], capture_output=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return inside.returncode == 0 and ignored.returncode == 1
