"""Name a run of ansible-playbook, and tell whether it is over."""

from __future__ import annotations

import os
import time

from ansible_collections.celery_ops.kit.plugins.module_utils import proc


def start_time(pid: int) -> str:
    """When a process began (clock ticks since boot), so that a reused pid is not taken for it; "" when it has ended."""
    found = proc.stat(pid)
    return str(found.start) if found else ""


def run_id(playbook: int) -> str:
    """The name of a run of ansible-playbook, under which it holds a lock."""
    return f"{os.uname().nodename}-{playbook}-{start_time(playbook)}"


def deployment_id() -> str:
    """Return an id for a deployment that begins now."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def has_ended(holder: str) -> bool:
    """Whether that run was started on this control node and is over."""
    node, _, playbook = holder.rpartition("-")[0].rpartition("-")
    return node == os.uname().nodename and playbook.isdecimal() and run_id(int(playbook)) != holder
