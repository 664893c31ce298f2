"""Which hosts of an inventory keep the results together, as a primary with replicas, and where each is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import address_of

VARIABLE = "celery_app_result_store_sentinel"
"""With it the group's hosts form one store."""


def store_members(groups: Mapping[str, list[str]], given: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """The hosts of the group result_store, where Sentinel keeps one of them the primary. Empty for a store alone."""
    members = list(groups.get("result_store") or [])
    return members if any(boolean(given(name).get(VARIABLE), strict=False) for name in members) else []


def store_address(host: str, given: Mapping[str, Any]) -> str:
    """The address at which clients and the other members reach a host's Redis and Sentinel."""
    return str(given.get("result_store_address") or address_of(host, given))
