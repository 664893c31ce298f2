"""Where a host reaches what listens on it, on the control node and on the host alike."""

from __future__ import annotations

import ipaddress


def own_address(bind: object) -> str:
    """Return the address at which a host reaches what listens there: loopback for all addresses, and for none given."""
    text = str(bind or "0.0.0.0")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # a name
        return text
    if not address.is_unspecified:
        return text
    return "::1" if address.version == 6 else "127.0.0.1"
