"""Rules for the variables of a command line: a verb that would not hear what it is told is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import types, unknown


def refuse_mistakes(given: Mapping[str, Any]) -> None:
    """Raise AnsibleError that lists each variable whose name is nearly one of the kit's, and each of another type."""
    plain = {name: value for name, value in given.items() if "{{" not in str(value)}
    found = [mistake.text for mistake in (*unknown(Host("", given)), *types(Host("", plain)))]
    if found:
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        raise AnsibleError(
            spelled("\n".join(["The command line is wrong (-e); nothing was changed on any host.", *lines]))
        )
