"""The status of an application on a host, for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import notes

PROGRAMS = ("PROGRAM", "STATE", "PID", "UP", "RESTARTS", "MEMORY", "RELEASE", "HEALTH", "QUEUES")
QUEUES = ("QUEUE", "READY", "UNACKED", "CONSUMERS", "OLDEST", "RATE")
ENTRIES = 3
"""Lines of the audit log that are shown."""


def verdict(problems: list[str]) -> list[str]:
    """Return the first lines of a status: whether all is in order, or what is not and what to type."""
    return ["PROBLEMS:", *(f"- {line}" for line in problems)] if problems else ["OK"]


def text(seen: Status, *, has_programs: bool, has_queues: bool) -> list[str]:
    """Return what was seen, line by line; `has_queues`: whether the broker is on this host."""
    lines = []
    if has_programs:
        since = f", since {_local(seen.since)}" if seen.release else ""
        lines.append(f"{seen.app} on {seen.host}: release {seen.release or '-'}{since}")
        rows = [program(name, one) for name, one in seen.programs.items()]
        lines += table(PROGRAMS, rows) if rows else ["no programs"]
        orphans = [f"pid {one['pid']} ({one['what']}) for {one['seconds']} s" for one in seen.orphans]
        lines.append(f"orphans: {', '.join(orphans) or ('none' if seen.watched else 'unknown without the watchdog')}")
    if seen.scheduled or seen.next_due:
        entry, last = max(seen.scheduled.items(), key=lambda each: each[1], default=("nothing yet", 0.0))
        said = f"last sent {entry}" + (f", {_local(last)}" if last else "")
        lines.append(f"scheduler: {said}" + (f"; next due {_local(seen.next_due)}" if seen.next_due else ""))
    if seen.tick:
        lines.append(f"tick: last run {_local(seen.tick)}")
    if seen.cluster:
        lines.append(f"cluster: {', '.join(f'{node} {state}' for node, state in seen.cluster.items())}")
    if has_queues and not seen.queues:
        lines.append("queues: none")
    lines += broker(seen)
    if seen.store:
        lines.append(f"result store: {store(seen.store)}")
    if seen.flower:
        lines.append(f"flower: {flower(seen.flower)}")
    lines += [f"note: {line}" for line in notes(seen)]
    if seen.certificates:
        ends = [f"{file} until {_local(end)[:10]}" for file, end in seen.certificates.items()]
        lines.append(f"certificates: {', '.join(ends)}")
    if has_programs:
        lines += [f"unsafe setting: {one['setting']} is {one['value']!r}; write: {one['write']}" for one in seen.unsafe]
        held = "{who} for {what} since {at}".format_map({"who": "?", "what": "?", "at": "?", **seen.lock})
        lines.append(f"lock: {held if seen.lock else 'free'}")
        if seen.work:
            lines.append(f"work: {host_work.words(seen.work)}")
        last = [deploy(entry) for entry in seen.deploys[:ENTRIES]] or ["-"]
        lines += [f"{'earlier' if number else 'last'}: {entry}" for number, entry in enumerate(last)]
    return lines


def pause(one: dict[str, Any]) -> str:
    """Return the line on what is paused."""
    until = _local(one["until"]) if one["until"] else pause_end(one)
    why = f": {one['why']}" if one["why"] else ""
    return f"{pause_what(one)}, since {_local(one['since'])}, until {until}, by {one['who'] or '?'}{why}"


def pause_what(one: dict[str, Any]) -> str:
    """Return what a pause is about."""
    known = {"all": "everything", "scheduler": "the scheduler", "web": "the web, which answers 503"}
    return known.get(one["what"]) or f"{one['what']} {one['name']}"


def pause_end(one: dict[str, Any]) -> str:
    """Return what ends a pause that has no time, by the verb that made it."""
    verb = {"maintenance": "maintenance.yml -e celery_app_maintenance=off", "deploy": "the deploy's end"}
    return verb.get(one["by"], "resume.yml")


def broker(seen: Status) -> list[str]:
    """Return the lines on the broker: its version, nodes and alarms, or why they can't be seen."""
    lines = [f"broker: RabbitMQ {seen.broker.installed}"] if seen.broker.installed else []
    for node in seen.nodes:
        if not node["is_here"]:  # it is shown with its own host
            continue
        memory = f"memory {size(node['memory'])} of {size(node['memory_limit'])}"
        disk = f"disk {size(node['disk_free'])} free, alarm below {size(node['disk_limit'])}"
        alarms = [one["alarm"] for one in seen.alarms if one["node"] == node["name"]]
        lines.append(f"node {node['name']}: {memory}, {disk}, alarms: {', '.join(alarms) or 'none'}")
    return [*lines, *([f"broker: {seen.unseen}"] if seen.unseen else [])]


def store(seen: dict[str, Any]) -> str:
    """Return the line on a result store."""
    if not seen["reachable"]:
        return "does not answer"
    limit = f" of {size(seen['memory_limit'])}" if seen["memory_limit"] else ""
    faults = ", ".join(seen["faults"]) or "persistence ok"
    return (
        f"Redis {seen['version']}, {seen['role']}, {seen['keys']} keys, memory {size(seen['memory'])}{limit}, "
        f"{seen['evicted']} evicted, {faults}"
    )


def flower(seen: dict[str, Any]) -> str:
    """Return the line on Flower."""
    if not seen["pid"]:
        return seen["state"] or "not installed"
    answer = "answers" if seen["answers"] else "does not answer"
    return f"{seen['state']}, {answer} at {seen['url']}, up {_span(seen['uptime'])}, memory {size(seen['memory'])}"


def deploy(entry: dict[str, Any]) -> str:
    """Return an entry of the audit log."""
    known = {"action": "-", "outcome": "-", "from": "", "to": "", "who": "-", "at": "-", **entry}
    changed = ", ".join(known.get("changed") or [])
    way = f"{known['from'] or 'nothing'} -> {known['to'] or 'nothing'}" + (f" ({changed})" if changed else "")
    if not known["from"] and not known["to"]:  # of a verb that changes no release
        way = changed
    if commits := known.get("commits"):
        way += f" [{commits[0]}{f'; {len(commits) - 1} more' if commits[1:] else ''}]"
    return f"{known['action']} {way}: {known['outcome']}, {known['who']}, {known['at']}"


def program(name: str, one: dict[str, Any]) -> Sequence[str]:
    """Return a program's row."""
    names = ", ".join([*one["queues"], *(f"{queue} (paused)" for queue in one["paused"])]) or "no queue"
    queues = f"{names} ({one['active']}/{one['slots']} busy)" if one["slots"] else ""
    process = (str(one["pid"]), _span(one["uptime"]), str(one["restarts"]), size(one["memory"] or None))
    return (
        name,
        one["state"],
        *(process if one["pid"] else ("-", "-", "-", "-")),
        one["release"] or "-",
        one["health"] or "-",
        queues,
    )


def queue_table(queues: Iterable[dict[str, Any]]) -> list[str]:
    """Return the queues, a line each; nothing for none. Of a broker of somebody else's less is known."""
    rows = []
    for one in queues:
        oldest, rate = one.get("oldest"), one.get("rate")
        rows.append(
            (
                one["name"],
                str(one["ready"] if "ready" in one else one["messages"]),
                "-" if one.get("unacked") is None else str(one["unacked"]),
                str(one["consumers"]),
                "-" if oldest is None else _span(oldest),
                "-" if rate is None else f"{rate:.3g}/s",
            )
        )
    return table(QUEUES, rows) if rows else []


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows below their columns' names."""
    cells = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def size(count: Any) -> str:
    """Return bytes as people write them; a dash for what is not known."""
    if not isinstance(count, (int, float)):
        return "-"
    power = next((power for power in range(4) if count < 1024 ** (power + 1)), 4)
    amount = count / 1024**power
    return f"{amount:.0f}{'BKMGT'[power]}" if power < 2 or amount >= 10 else f"{amount:.1f}{'BKMGT'[power]}"


def _span(seconds: int) -> str:
    days, rest = divmod(int(seconds), 86400)
    return (f"{days}d " if days else "") + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"


def _local(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
