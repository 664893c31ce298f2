"""IP addresses in an inventory's texts."""

from __future__ import annotations

import ipaddress
from typing import Any


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


def is_reachable_ipv4(text: str) -> bool:
    """Whether other hosts can reach one there: an IPv4 address that is not loopback."""
    address = as_ip(text)
    return isinstance(address, ipaddress.IPv4Address) and not address.is_loopback and not address.is_unspecified
