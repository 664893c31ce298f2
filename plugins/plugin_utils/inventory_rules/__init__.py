"""What an inventory has to fulfil. A rule yields mistakes: of a host, of a host in its place, or of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import environment, programs, values, whole
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, Inventory, Mistake

HOST_RULES = (
    values.types, values.renamed, values.unknown, values.bounds, values.forms, values.name, values.ports, values.shared,
    environment.environment, values.hooks, values.folders,
    programs.workers, programs.scheduler, programs.web, programs.commands,
)  # fmt: skip
PLACE_RULES = (values.source, whole.times, whole.migrate_host, whole.services)
INVENTORY_RULES = (
    whole.groups, whole.scheduler, whole.clusters, whole.one_application, whole.neighbours, whole.migration,
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
        note(values.secrets(host, lambda value: plain_part(value, is_template)), host.name)
    # No password is generated here: whether that is right, only the hosts can tell.
    if not found and not only:
        for host in inventory.hosts:
            note(values.secrets(host, lambda value, host=host: known_part(value, host)), host.name)
    return [
        mistake.text if "" in hosts or len(hosts) == len(inventory.hosts) else f"{mistake.text} [{', '.join(hosts)}]"
        for mistake, hosts in found.items()
        if not only or mistake.variable in only
    ]


def plain_part(value: Any, is_template: Callable[[Any], bool]) -> Any:
    """`value` without the templates in it."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if not is_template(item)}
    return values.LATER if is_template(value) else value


def known_part(value: Any, host: Host) -> Any:
    """`value`, evaluated, without the passwords in it that are not generated yet."""
    if isinstance(value, Mapping):
        return host.evaluate({key: item for key, item in value.items() if not values.missing_file(item, host.evaluate)})
    return values.LATER if values.missing_file(value, host.evaluate) else host.evaluate(value)
