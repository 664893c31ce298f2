"""The status of an application on a host, for people."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import notes

COLUMNS = ("PROGRAM", "STATE", "PID", "UP", "RELEASE", "HEALTH", "QUEUES")


def text(seen: Status, problems: list[str], *, has_programs: bool, has_queues: bool) -> list[str]:
    """Return all of it, line by line; `has_queues`: whether the broker is on this host."""
    lines = []
    if has_programs:
        since = f", since {_local(seen.since)}" if seen.release else ""
        lines.append(f"{seen.app} on {seen.host}: release {seen.release or '-'}{since}")
        lines += table(seen.programs)
        orphans = [f"pid {one['pid']} ({one['what']}) for {one['seconds']} s" for one in seen.orphans]
        lines.append(f"orphans: {', '.join(orphans) or ('none' if seen.watched else 'unknown without the watchdog')}")
    if seen.cluster:
        lines.append(f"cluster: {', '.join(f'{node} {state}' for node, state in seen.cluster.items())}")
    if has_queues or seen.queues:
        queues = [
            f"{name} {one['messages']}" + (f" ({one['consumers']} consumers)" if one["consumers"] else "")
            for name, one in sorted(seen.queues.items())
        ]
        lines.append(f"queues: {', '.join(queues) or 'none'}")
    if seen.broker.installed:
        lines.append(f"broker: RabbitMQ {seen.broker.installed}")
    lines += [f"note: {line}" for line in notes(seen)]
    if seen.certificates:
        ends = [f"{file} until {_local(end)[:10]}" for file, end in seen.certificates.items()]
        lines.append(f"certificates: {', '.join(ends)}")
    if seen.unseen:
        lines.append(f"broker: {seen.unseen}")
    if has_programs:
        lines += [f"unsafe setting: {one['setting']} is {one['value']!r}; write: {one['write']}" for one in seen.unsafe]
        held = "{who} for {what} since {at}".format_map({"who": "?", "what": "?", "at": "?", **seen.lock})
        lines.append(f"lock: {held if seen.lock else 'free'}")
        if seen.work:
            lines.append(f"work: {host_work.words(seen.work)}")
        lines += [f"{'earlier' if number else 'last'}: {deploy(entry)}" for number, entry in enumerate(seen.deploys)]
        lines += [] if seen.deploys else ["last: -"]
    return [*lines, *(["PROBLEMS:", *(f"- {line}" for line in problems)] if problems else ["OK"])]


def deploy(entry: dict[str, Any]) -> str:
    """Return an entry of the audit log."""
    known = {"action": "-", "outcome": "-", "from": "", "to": "", "who": "-", "at": "-", **entry}
    changed = ", ".join(known.get("changed") or [])
    way = f"{known['from'] or 'nothing'} -> {known['to'] or 'nothing'}" + (f" ({changed})" if changed else "")
    if not known["from"] and not known["to"]:  # of a verb that changes no release
        way = changed
    return f"{known['action']} {way}: {known['outcome']}, {known['who']}, {known['at']}"


def table(programs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the programs, a line each."""
    rows = [COLUMNS]
    for name, one in programs.items():
        up, pid = (_span(one["uptime"]), str(one["pid"])) if one["pid"] else ("-", "-")
        rows.append((name, one["state"], pid, up, one["release"] or "-", one["health"] or "-", one["tasks"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return lines if programs else ["no programs"]


def _span(seconds: int) -> str:
    days, rest = divmod(int(seconds), 86400)
    return (f"{days}d " if days else "") + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"


def _local(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
