"""A host's variables as plugins on the control node read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import APP_GROUPS, GROUPS, own_groups, prefix_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members


class Variables(Mapping[str, Any]):
    """The variables of a task, each evaluated when it is first asked for.

    `groups` and `group_names` are the kit's, by their plain names. `hostvars` stays as it is: it evaluates by itself
    what it is asked for, and all of it at once would make passwords.
    """

    def __init__(self, raw: Mapping[str, Any], evaluate: Callable[[Any], Any]) -> None:
        self.raw, self._evaluate = raw, evaluate
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> Any:
        value = self.raw[name]
        if name == "groups":
            return own_groups(self._evaluate(value))
        if name == "group_names":
            prefix = prefix_of(self.raw["groups"])
            return [each.removeprefix(prefix) for each in self._evaluate(value) if each.startswith(prefix)]
        return value if name == "hostvars" else self._evaluate(value)

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def path_of(given: Any) -> Path:
    """Return a path of the control node: `~` is a home, as Ansible's own lookups have it; of a user there is, alone."""
    path = Path(str(given))
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def is_there(path: Path) -> bool:
    """Whether there is something; nothing is where one may not look."""
    with suppress(OSError):
        return path.exists()
    return False


def is_directory(path: Path) -> bool:
    """Whether there is a directory; none is where one may not look."""
    return is_there(path) and path.is_dir()


def worker_programs(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the application's worker programs: the host's own, or those of the first host that has some."""
    if "worker" not in variables["group_names"]:
        for entries in worker_programs_of_hosts(variables):
            return entries
    return list(variables.get("celery_worker_programs") or [])


def worker_programs_of_hosts(variables: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the worker programs of every host whose inventory says some."""
    for host in variables["groups"].get("worker", []):
        known = variables["hostvars"][host]
        if "celery_worker_programs" in known:
            yield list(known["celery_worker_programs"])


def members_of_app(variables: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the hosts of the kit's groups; in those that run programs, the hosts that run this host's application."""
    given = variables["hostvars"]
    here = given[variables["inventory_hostname"]].get("celery_app_name", "")
    return {
        group: [host for host in hosts if group not in APP_GROUPS or given[host].get("celery_app_name", "") == here]
        for group, hosts in variables["groups"].items()
        if group in GROUPS
    }


def schedulers(variables: Mapping[str, Any]) -> list[str]:
    """Return the hosts that schedule this host's application at the same broker; of several, one leads by the lease.

    In doubt a host counts: the lease is in the broker, so that each of two brokers has a leader of its own.
    """
    members, here = list((variables.get("groups") or {}).get("scheduler") or []), str(variables["inventory_hostname"])
    if len(members) < 2:
        return members
    given, groups = variables["hostvars"], variables["groups"]
    names = {host: given[host].get("celery_app_name", "") for host in {*members, here}}
    return [
        host
        for host in members
        if boolean(given[host].get("celery_scheduler_enabled", True), strict=False)
        and names[host] == names[here]
        and (host == here or not _other_broker(here, host, groups, given))
    ]


def _other_broker(one: str, two: str, groups: Mapping[str, list[str]], given: Mapping[str, Any]) -> bool:
    """Whether two hosts certainly use different brokers."""
    for variable in ("celery_app_broker_url", "celery_app_broker_host"):
        texts = [str(given[host].get(variable) or "") for host in (one, two)]
        if any(texts):
            addresses = [set(re.split("[;,]", text)) for text in texts]
            return all(texts) and addresses[0].isdisjoint(addresses[1])
    members = groups.get("rabbitmq") or []
    return one in members and two in members and not cluster_members(dict(groups), lambda host: given[host])


def own_time_limits(programs: list[dict[str, Any]]) -> list[int]:
    """Return the time limits that worker programs have of their own, in seconds."""
    return [int(limit) for program in programs if (limit := program.get("time_limit"))]


def migrate_host(variables: Mapping[str, Any]) -> str:
    """Return the host that migrates where the inventory names none: the first web host, or else the first worker."""
    return next((host for group in ("web", "worker") for host in variables["groups"].get(group) or []), "")
