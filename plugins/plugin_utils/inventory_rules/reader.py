"""Hosts with their variables, as an Ansible run has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import (
    GROUPS,
    app_hosts,
    own_groups,
    prefix_of,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    ROOT,
    Host,
    declared,
    trusted,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import ADDRESS_VARIABLES, address_of

Evaluate = Callable[[Any], Any]


def nothing_instead(_given: Mapping[str, Any], _evaluate: Evaluate) -> dict[str, Any]:
    """No stand-ins: every value is evaluated, and a password that is missing is generated."""
    return {}


@cache
def role_defaults() -> Mapping[str, Any]:
    """The defaults of all roles' variables, as templates."""
    return {variable: trusted(spec.get("default")) for variable, spec in declared().items()}


class Reader:
    """Reads hosts from the variables of a run."""

    def __init__(self, variables: Mapping[str, Any], templar: Any) -> None:
        self.hostvars, self.templar = variables["hostvars"], templar
        self.groups, self.prefix = own_groups(variables["groups"]), prefix_of(variables["groups"])

    def members(self, group: str) -> list[str]:
        """The hosts of one of our groups; none when there is no such group."""
        return self.groups.get(group, [])

    @property
    def kit_hosts(self) -> list[str]:
        """The hosts of our groups, each once."""
        return list(dict.fromkeys(name for group in GROUPS for name in self.members(group)))

    @property
    def app_hosts(self) -> list[str]:
        """The hosts that run a program of the application."""
        return app_hosts(self.groups)

    def address(self, name: str) -> str:
        """Where a host is reached, also one that is not the kit's; its name where that can't be evaluated."""
        given = self.hostvars.raw_get(name)
        is_plain = not any(self.templar.is_template(given.get(variable)) for variable in ADDRESS_VARIABLES)
        return address_of(name, given if is_plain else self.host(name).known)

    def host(
        self, name: str, instead: Callable[[Mapping[str, Any], Evaluate], dict[str, Any]] = nothing_instead
    ) -> Host:
        """A host: its own variables, evaluated among the roles' defaults when somebody asks for them.

        `instead` gives values to variables that must not be evaluated.
        """
        given = self.hostvars.raw_get(name)
        around = {"hostvars": self.hostvars, "role_path": str(ROOT / "roles/any")}
        templar = self.templar.copy_with_new_env(available_variables={**role_defaults(), **around, **given})
        templar.available_variables = templar.available_variables | instead(given, templar.template)
        in_groups = frozenset(group for group in GROUPS if name in self.members(group))
        return Host(name, given, in_groups, templar.template)
