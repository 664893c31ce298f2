"""The lease of a deploy, and when it was renewed. Standard library only, for runtime and modules.

The host's wall clock may be set at any moment, so the age counts by the kernel's monotonic clock. It begins anew with
each boot, and stands still while the host is suspended, where no renewal can arrive. The wall clock's time is for
people, and for earlier versions of the kit, which know nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """Return what names this boot of the host; empty where the kernel does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def renewed(lease: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lease as of now."""
    return {**lease, "renewed": time.time(), "boot": boot(), "monotonic": time.monotonic()}


def age(lease: Mapping[str, Any]) -> float:
    """Return the seconds since it was renewed, infinite for one of an earlier boot. Raises ValueError, TypeError."""
    if "monotonic" not in lease:  # an earlier version of the kit wrote it
        return time.time() - float(lease.get("renewed", 0))
    seconds = time.monotonic() - float(lease["monotonic"])
    return seconds if lease.get("boot") == boot() and seconds >= 0 else math.inf


def when(lease: Mapping[str, Any]) -> str:
    """Return when it was renewed, for the operator."""
    seconds = age(lease)
    return f"{seconds:.0f} s ago" if math.isfinite(seconds) else "before this host was started again"
