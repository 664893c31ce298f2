"""The kit's groups under the names that an inventory gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import APP_GROUPS, GROUPS

PREFIX = "celery_"


def prefix_of(names: Iterable[str]) -> str:
    """Return what the kit's groups begin with among these: `celery_` where one of them is called so, or nothing."""
    return PREFIX if {f"{PREFIX}{group}" for group in GROUPS} & set(names) else ""


def own_groups(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the groups that may be the kit's by their plain names; in an inventory with the prefix, no other ones."""
    prefix = prefix_of(groups)
    return {name.removeprefix(prefix): list(hosts) for name, hosts in groups.items() if name.startswith(prefix)}


def app_hosts(groups: Mapping[str, list[str]]) -> list[str]:
    """Return the hosts that run a program of the application, each once; the groups by their plain names."""
    return list(dict.fromkeys(host for group in GROUPS if group in APP_GROUPS for host in groups.get(group, [])))


def runs_nothing(variables: Mapping[str, Any]) -> str:
    """Return what to say of a host that is in no group which says what of the application it runs; "" for others."""
    if APP_GROUPS & set(variables["group_names"]):
        return ""
    host, names = variables["inventory_hostname"], ", ".join(group for group in GROUPS if group in APP_GROUPS)
    return (
        f"{host} is in none of the groups {names}, which say what of the application a host runs. Write in the "
        f"inventory: worker: {{hosts: {{{host}: }}}} (or the group's name with {PREFIX} before it)"
    )
