"""Who runs ansible-playbook, the name of the run, and whether it is over."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import proc


def actor(variables: Mapping[str, Any]) -> str:
    """Who runs the playbook: AWX's user, or whoever is logged in here; in a container there may be only a number."""
    name = variables.get("awx_user_name") or variables.get("tower_user_name") or os.environ.get("SUDO_USER") or _login()
    return f"{name}@{os.uname().nodename}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


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
