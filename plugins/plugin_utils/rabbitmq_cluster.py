"""Which hosts of an inventory form a RabbitMQ cluster, and the name and the address that each node has in it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Given = Callable[[str], Mapping[str, Any]]
"""The variables that the inventory gives to a host, by the host's name."""


def cluster_members(groups: Mapping[str, list[str]], given: Given) -> list[str]:
    """The hosts that form a cluster: the group rabbitmq, where it has several. Empty for a broker that is alone.

    Several brokers are systems of their own, each with its programs, where each has its own result store, or one
    listens on loopback or is somebody else's.
    """
    members = list(groups.get("rabbitmq") or [])
    own_systems = len(groups.get("result_store") or []) > 1 or any(
        is_loopback(given(name).get("rabbitmq_bind")) or boolean(given(name).get("rabbitmq_shared"), strict=False)
        for name in members
    )
    return [] if len(members) < 2 or own_systems else members


def cluster_nodes(members: list[str], given: Given) -> list[dict[str, str]]:
    """Erlang's name and the address of each member, as the role takes them."""
    return [{"name": node_name(name, given(name)), "address": node_address(name, given(name))} for name in members]


def node_name(host: str, given: Mapping[str, Any]) -> str:
    """Erlang's name of a member: the inventory's own, or one of the host's short name."""
    if name := given.get("rabbitmq_node_name"):
        return str(name)
    short = host if as_ip(host) else host.partition(".")[0]
    return "rabbit@" + re.sub(r"[^a-z0-9-]", "-", short.lower())


def node_address(host: str, given: Mapping[str, Any]) -> str:
    """The IP address at which the other members reach a host; a name that does not lead to one is returned as it is."""
    if (own := given.get("rabbitmq_distribution_bind")) and not is_loopback(own):
        return str(own)
    text = str(given.get("ansible_host") or host)
    if as_ip(text):
        return text
    try:
        return socket.gethostbyname(text)
    except (OSError, UnicodeError):
        return text


def is_node_address(text: str) -> bool:
    """Whether other hosts can reach a node there: an IPv4 address that is not loopback."""
    address = as_ip(text)
    return isinstance(address, ipaddress.IPv4Address) and not address.is_loopback and not address.is_unspecified


def is_loopback(text: Any) -> bool:
    """Whether it is an address of loopback."""
    address = as_ip(str(text))
    return bool(address and address.is_loopback)


def as_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text is; None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
