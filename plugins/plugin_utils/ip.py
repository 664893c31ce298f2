"""Addresses in an inventory: where a host is reached, and IP addresses in its texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

ADDRESS_VARIABLES = ("ansible_host", "ansible_ssh_host")
"""What says where a host is reached, for Ansible too; the second is the name of before Ansible 2.0."""


def address_of(host: str, given: Mapping[str, Any]) -> str:
    """The address at which Ansible and the other hosts reach a host, by its variables, evaluated."""
    return str(next(filter(None, map(given.get, ADDRESS_VARIABLES)), host))


def as_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text is; None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_loopback(text: Any) -> bool:
    """Whether it is an address of loopback."""
    address = as_ip(str(text))
    return bool(address and address.is_loopback)


def default_bind(address: str, *, for_others: bool) -> str:
    """What a service listens on by default, on a host of this address: loopback, or all addresses for other hosts."""
    if not for_others:
        return "127.0.0.1"
    found = as_ip(address)
    return "::" if found and found.version == 6 else "0.0.0.0"


def is_reachable_ipv4(text: str) -> bool:
    """Whether other hosts can reach one there: an IPv4 address that is not loopback."""
    address = as_ip(text)
    return isinstance(address, ipaddress.IPv4Address) and not address.is_loopback and not address.is_unspecified
