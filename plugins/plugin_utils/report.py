"""The verb `report`: the use of all hosts' programs, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.usage import size
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of

REPORT = "__celery_app_report"
"""What each host's usage was registered as."""


def report(variables: Mapping[str, Any]) -> str:
    """Return the report, the outcome last."""
    hosts = results_of(variables, REPORT)
    return "\n".join(lines({host: answer["usage"] for host, answer in hosts.items() if "usage" in answer}))


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines for the hosts' usages."""
    text, advice = [], []
    for host, usage in found.items():
        if not usage["samples"]:
            text.append(f"{host}: the watchdog has no samples yet. Look at it: ansible-playbook playbooks/status.yml")
            continue
        text.append(f"{host}, the last {span(usage['samples'] * usage['every'])}:")
        for name, one in usage["programs"].items():
            line = f"  {name}: memory {size(one['memory'])} at most"
            if one["slots"]:
                share = 100 * one["active"] / one["slots"]
                line += f"; {one['slots']} slots, {share:.0f} % used, {one['peak']:.0f} at most"
            text.append(line)
            advice += [f"{host} {name}: {one['advice']}"] if one.get("advice") else []
        for name, one in usage["queues"].items():
            text.append(
                f"  queue {name}: {one['rate']:.2f} tasks/s here, {one['ready']:.0f} waiting at most, "
                f"the oldest {one['wait']:.0f} s on average"
            )
    return [*text, *(["TO CHANGE:", *(f"- {one}" for one in advice)] if advice else ["Nothing to change"])]


def span(seconds: float) -> str:
    """Return a time in the unit that fits."""
    return f"{seconds / 60:.0f} min" if seconds <= 2 * 3600 else f"{seconds / 3600:.0f} h"
