"""What the verbs share: which hosts take part, and one line of outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = {"skipped", "failed", "unreachable"}
"""What a result says of itself that tells nothing else."""


def is_first(variables: Mapping[str, Any], preferred: str = "") -> bool:
    """Whether this host is the one of the run that does what is done once: the preferred one if it takes part."""
    hosts = list(variables["ansible_play_hosts_all"])
    return variables["inventory_hostname"] == (preferred if preferred in hosts else hosts[0])


def results_of(variables: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return what each host of the run has registered under `name`; none of those skipped, failed or lost."""
    found = {host: variables["hostvars"][host].get(name) or {} for host in variables["ansible_play_hosts_all"]}
    return {
        host: result
        for host, result in found.items()
        if result and not NOTHING & {key for key in result if result[key]}
    }


def said(line: str, *, failed: bool = False, changed: bool = False) -> dict[str, Any]:
    """Return the result of the task that ends a verb: its one line is shown whether or not it failed."""
    return {"changed": changed, "failed": failed, "msg": line, "_ansible_verbose_always": True}
