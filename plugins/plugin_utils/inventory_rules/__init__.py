"""What an inventory has to fulfil. A rule yields mistakes: of a host, of a host in its place, or of the cross_host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import (
    cross_host,
    environment,
    programs,
    variables,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, Inventory, Mistake

HOST_RULES = (
    variables.types, variables.written, variables.renamed, variables.unknown, variables.bounds, variables.forms,
    variables.name, variables.ports, variables.verified_clients, variables.shared, environment.environment,
    variables.hooks, variables.notify, variables.rollout, variables.directories, variables.packages,
    programs.workers, programs.scheduler, programs.web, programs.commands,
)  # fmt: skip
PLACE_RULES = (
    variables.source,
    cross_host.times,
    cross_host.migrate_host,
    cross_host.flower,
    cross_host.services,
    cross_host.secrets_dir,
)
INVENTORY_RULES = (
    cross_host.groups, cross_host.scheduler, cross_host.clusters, cross_host.one_application, cross_host.neighbours,
    cross_host.migration,
)  # fmt: skip


def mistakes_of(inventory: Inventory, is_template: Callable[[Any], bool], only: Iterable[str] = ()) -> list[str]:
    """Every mistake in words, and whose it is where it is not everybody's; if `only` names any, of these variables."""
    found: dict[Mistake, list[str]] = {}

    def note(mistakes: Iterable[Mistake], host: str) -> None:
        for mistake in mistakes:
            found.setdefault(mistake, []).append(host)

    for rule in INVENTORY_RULES:
        note(rule(inventory), "")
    for host in inventory.hosts:
        for rule in HOST_RULES:
            note(rule(host), host.name)
        for rule in PLACE_RULES:
            note(rule(host, inventory), host.name)
        note(variables.secrets(host, lambda value, host=host: plain_part(value, host, is_template)), host.name)
    # No password is generated here: whether that is right, only the hosts can tell.
    if not found and not only:
        for host in inventory.hosts:
            note(variables.secrets(host, lambda value, host=host: known_part(value, host)), host.name)
    return [
        mistake.text if "" in hosts or len(hosts) == len(inventory.hosts) else f"{mistake.text} [{', '.join(hosts)}]"
        for mistake, hosts in found.items()
        if not only or mistake.variable in only
    ]


def plain_part(value: Any, host: Host, is_template: Callable[[Any], bool]) -> Any:
    """`value` without the templates in it; evaluating the rest decrypts what is in a vault by itself."""
    if isinstance(value, Mapping):
        return host.evaluate({key: item for key, item in value.items() if not is_template(item)})
    return variables.LATER if is_template(value) else host.evaluate(value)


def known_part(value: Any, host: Host) -> Any:
    """`value`, evaluated, without the passwords in it that are not generated yet."""
    if isinstance(value, Mapping):
        return host.evaluate(
            {key: item for key, item in value.items() if not variables.missing_file(item, host.evaluate)}
        )
    return variables.LATER if variables.missing_file(value, host.evaluate) else host.evaluate(value)
