"""The logs of all hosts of a run, merged by time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOGS = "__celery_app_logs"
"""What each host's logs were registered as."""


def logs(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the `text` to show, and in `wrong` why no host has such a program or release; one of them is empty."""
    hosts = variables["ansible_play_hosts_all"]
    found = {host: variables["hostvars"][host].get(LOGS) or {} for host in hosts}
    found = {host: answer for host, answer in found.items() if "entries" in answer}
    wrong = {host: answer["wrong"] for host, answer in found.items() if answer["wrong"]}
    if found and len(wrong) == len(found):
        return {"text": "", "wrong": "\n".join(f"celery_app_logs_{why} ({host})" for host, why in wrong.items())}
    return {"text": "\n".join(merged({host: answer["entries"] for host, answer in found.items()})), "wrong": ""}


def merged(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return the lines of all hosts' entries by time, with host and program before each; and how many entries."""
    entries = [(entry["time"], host, entry) for host, of_host in found.items() for entry in of_host]
    entries.sort(key=lambda one: one[0])
    names = {(host, entry["program"]): f"{host} {entry['program']}" for _, host, entry in entries}
    width = max(map(len, names.values()), default=0)
    lines = [
        f"{names[host, entry['program']]:{width}} | {line}"
        for _, host, entry in entries
        for line in entry["text"].split("\n")
    ]
    return [*lines, f"shown: {len(entries)} entries; programs: {len(names)}; hosts: {len({host for host, _ in names})}"]
