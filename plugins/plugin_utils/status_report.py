"""The status of all hosts of a run as one document, from what the module celery_status returned of each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import DEAD
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import unconsumed
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import pause, queue_table, verdict
from ansible_collections.celery_ops.kit.plugins.plugin_utils.drift import problem as drift_problem
from ansible_collections.celery_ops.kit.plugins.plugin_utils.leader import Leadership, leadership

ADDED = ("unacked", "rate")
"""The columns of the last hour in which each host has a part of the whole."""
VERSION = 1
"""Of the document's schema, docs/status.schema.json: another one where a field is removed or changes its meaning."""

Result = Mapping[str, Any]


def document(
    results: Mapping[str, Result],
    schedulers: Iterable[Iterable[str]],
    app: str = "",
    drift: list[dict[str, str]] | str | None = None,
) -> dict[str, Any]:
    """Return the document; `app` is the application of hosts that were not reached.

    `results` are the module's by host, `schedulers` the hosts whose schedulers share a broker, `drift` is what differs
    from the inventory (plugin_utils/drift.py), or why that is not known; None where nobody asked.
    """
    leaderships = [leadership({host: programs_of(results.get(host)) for host in hosts}) for hosts in schedulers]
    # The broker's host does not know what is paused on the workers'.
    expected = {
        name: tuple(map(unconsumed, paused_queues(one for one in results.values() if app_of(one, app) == name)))
        for name in {app_of(result, app) for result in results.values()}
    }
    problems = [
        problem(host, line)
        for host, result in results.items()
        for line in wrong(result)
        if not line.startswith(expected[app_of(result, app)])
    ]
    problems += [problem(", ".join(one.hosts), line) for one in leaderships for line in one.problems()]
    if isinstance(drift, str):
        problems.append(problem("", f"It is not known what differs from the inventory: {drift}"))
        drift = None
    problems += [drift_problem(drift or [], host) for host in dict.fromkeys(one["host"] for one in drift or [])]
    hosts = [host_entry(name, result, app) for name, result in results.items()]
    return {
        "version": VERSION,
        "generated": moment(time.time()),
        "ok": not problems,
        "problems": problems,
        "applications": [
            application(
                name, {host["host"]: results[host["host"]] for host in hosts if host["app"] == name}, leaderships
            )
            for name in dict.fromkeys(host["app"] for host in hosts)
        ],
        "hosts": hosts,
        "drift": drift,
    }


def problem_lines(given: Mapping[str, Any], *, several: bool) -> list[str]:
    """Return the first lines of a status; with the hosts' names where there are several."""
    found = [
        (f"{one['host']}: " if several and one["host"] else "") + ". ".join(filter(None, (one["problem"], one["fix"])))
        for one in given["problems"]
    ]
    return verdict(found)


def lines(results: Mapping[str, Result], given: Mapping[str, Any], schedulers: Iterable[Iterable[str]]) -> list[str]:
    """Return the status for people: first whether all is in order, or what is not and what to type."""
    several = len(results) > 1
    shown = problem_lines(given, several=several)
    if given["drift"] == []:
        shown.append("drift: none, site.yml would change nothing")
    for hosts in schedulers:
        shown += leadership({host: programs_of(results.get(host)) for host in hosts}).lines()
    for host, result in results.items():
        where = f" on {host}" if several else ""
        shown += [f"paused{where}: {pause(one)}" for one in result.get("paused") or []]
    for one in given["applications"]:
        shown += ["", *queue_table(one["queues"])] if one["queues"] else []
    for result in results.values():
        shown += ["", *(result.get("lines") or [])] if result.get("lines") else []
    return shown


def app_of(result: Result, app: str) -> str:
    """Return the application of a host; `app` where it was not reached."""
    return str(result.get("app") or app)


def paused_queues(results: Iterable[Result]) -> set[str]:
    """Return the queues that a worker of any of these hosts would consume from if they were not paused."""
    programs = [one for result in results for one in (result.get("programs") or {}).values()]
    return {queue for one in programs for queue in one.get("paused") or []}


def programs_of(result: Result | None) -> Mapping[str, Any] | None:
    """Return the programs of a host; None where it was not looked at."""
    return result.get("programs") if result else None


def wrong(result: Result) -> list[str]:
    """Return what is wrong on a host, also where nothing could be read there."""
    if result.get("unreachable"):
        return [f"It can't be reached ({first_line(result)}). Is it up, and does ansible -m ping reach it?"]
    if "problems" not in result:
        return [f"Its status can't be read: {first_line(result)}"]
    return list(result["problems"])


def first_line(result: Result) -> str:
    """Return the first line of what the host, or else Ansible, says of a task that failed."""
    said = (str(result.get(key) or "").strip() for key in ("module_stderr", "msg"))
    return (next(filter(None, said), "no reason given").splitlines())[0].rstrip(".")


def problem(host: str, line: str) -> dict[str, str]:
    """Return a problem: its last sentence says what to do."""
    what, _, fix = line.rpartition(". ")
    return {"host": host, "problem": what or fix, "fix": fix if what else ""}


def application(app: str, results: Mapping[str, Result], leaderships: list[Leadership]) -> dict[str, Any]:
    """Return what is known of an application as a whole."""
    told = queue_hosts(results)
    is_one_broker = len(told) < 2 or all(result.get("unseen") for result in told.values())

    def now(name: str, broker: str) -> list[Mapping[str, float]]:
        """Return what watchdogs tell of a queue: where there are several brokers, the one on the broker's host."""
        seen = [result.get("now") or {} for host, result in results.items() if is_one_broker or host == broker]
        return [of[name] for of in seen if name in of]

    queues = [
        queue_entry(host, app, name, queue, now(name, host))
        for host, result in told.items()
        for name, queue in sorted(result["queues"].items())
    ]
    dead = [queue["ready"] for queue in queues if queue["is_dead"]]
    return {
        "app": app,
        "releases": sorted({result["release"] for result in results.values() if result.get("release")}),
        "queues": queues,
        "dead_lettered": sum(dead) if dead else None,
        "schedulers": [
            {
                "hosts": one.hosts,
                "leading": one.leading,
                "standing_by": one.standing_by,
                "next_due": moment(max(results.get(host, {}).get("next_due") or 0 for host in one.hosts) or None),
                "last_tick": moment(max(result.get("tick") or 0 for result in results.values()) or None),
                "last_runs": last_runs(results.get(host, {}) for host in one.hosts),
            }
            for one in leaderships
            if set(one.hosts) & set(results)
        ],
        "hour": hour([result["hour"] for result in results.values() if result.get("hour")], time.time()),
    }


def hour(given: list[Mapping[str, Any]], now: float) -> dict[str, Any] | None:
    """Return the hour until now of all hosts' queues; None where no host knows.

    Each host counts what its own workers hold and finish; of the rest, all say the same of one queue.
    """
    if not given:
        return None
    every = given[0]["every"]
    last = int(now // every) - 1
    for one in given:
        last = max([last, *(one["first"] + len(of["ready"]) - 1 for of in one["queues"].values())])
    count = 3600 // every + 1
    first = last - count + 1
    found: dict[str, dict[str, list[Any]]] = {}
    for one in given:
        for name, columns in one["queues"].items():
            into = found.setdefault(name, {key: [None] * count for key in columns})
            for key, values in columns.items():
                for index, value in enumerate(values, one["first"] - first):
                    if value is not None and index >= 0:
                        before = into[key][index]
                        both = before is not None
                        into[key][index] = (before + value if key in ADDED else max(before, value)) if both else value
    return {
        "from": moment(first * every),
        "every": every,
        "count": count,
        "queues": [{"name": name, **columns} for name, columns in sorted(found.items())],
    }


def queue_hosts(results: Mapping[str, Result]) -> dict[str, Result]:
    """Return the hosts whose queues are different ones, with these: of a cluster's the first that told some."""
    found: dict[str, Result] = {}
    seen: set[tuple[str, ...]] = set()
    asked: set[str] = set()
    for host, result in results.items():
        queues = result.get("queues") or {}
        key = tuple(sorted(result.get("cluster") or ())) or (host,)
        if result.get("unseen"):  # each asks a broker of somebody else's for the queues it consumes from
            queues = {name: queue for name, queue in queues.items() if name not in asked}
            asked |= set(queues)
        if queues and key not in seen:
            seen.add(key)
            found[host] = {**result, "queues": queues}
    return found


def queue_entry(
    host: str, app: str, name: str, queue: Mapping[str, Any], now: Iterable[Mapping[str, float]]
) -> dict[str, Any]:
    """Return a queue, of what its broker and the workers' watchdogs tell; None for what they do not."""
    oldest, rates = ([one[key] for one in now if key in one] for key in ("oldest", "rate"))
    return {
        "name": name,
        "host": host,
        "is_dead": name == f"{app}{DEAD}",
        "ready": queue.get("ready", queue["messages"]),
        "unacked": queue.get("unacked"),
        "consumers": queue["consumers"],
        "oldest": max(oldest, default=None),
        "rate": round(sum(rates), 3) if rates else None,
        "reasons": [{"reason": reason, "count": count} for reason, count in queue.get("reasons", {}).items()],
    }


def last_runs(results: Iterable[Result]) -> list[dict[str, str]]:
    """Return when each entry of the schedule last ran, the latest of several schedulers' notes, newest first."""
    latest: dict[str, float] = {}
    for result in results:
        for entry, at in (result.get("scheduled") or {}).items():
            latest[entry] = max(at, latest.get(entry, 0.0))
    return [{"entry": entry, "at": moment(at)} for entry, at in sorted(latest.items(), key=lambda each: -each[1])]


def host_entry(host: str, result: Result, app: str) -> dict[str, Any]:
    """Return what is known of a host."""
    known = {key: result.get(key) or {} for key in ("lock", "work", "draft", "store")}
    return {
        "host": host,
        "app": app_of(result, app),
        "reached": "problems" in result,
        "hostname": result.get("hostname", ""),
        "release": result.get("release", ""),
        "since": moment(result.get("since")) if result.get("release") else None,
        "problems": wrong(result),
        "notes": list(result.get("notes") or []),
        "programs": [program(name, one) for name, one in (result.get("programs") or {}).items()],
        "watchdog": bool(result.get("watched")),
        "orphans": [picked(one, "pid", "what", "seconds") for one in result.get("orphans") or []],
        "broker": broker(result),
        "result_store": store(known["store"]) if known["store"] else None,
        "flower": flower(result["flower"]) if result.get("flower") else None,
        "certificates": [
            {"file": file, "ends": moment(end)} for file, end in (result.get("certificates") or {}).items()
        ],
        "paused": [
            {
                **picked(one, "what", "name", "who", "why", "by"),
                "since": moment(one["since"]),
                "until": moment(one["until"]),
            }
            for one in result.get("paused") or []
        ],
        "lock": picked(known["lock"], "who", "what", "at") if known["lock"] else None,
        "work": picked(known["work"], "who", "what", "phase", "since") if known["work"] else None,
        "unfinished": picked(known["draft"], "action", "who", "release", "phase") if known["draft"] else None,
        "deploys": [deploy(entry) for entry in result.get("deploys") or []],
        "unsafe": [picked(one, "setting", "value", "write") for one in result.get("unsafe") or []],
        "unlisted": [picked(one, "program", "host", "connection") for one in result.get("unlisted") or []],
    }


def program(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a program; memory, uptime and what it works on are None where it does not run or is no worker."""
    runs, works = bool(one["pid"]), bool(one["slots"])
    return {
        "name": name,
        "program": one["program"],
        "state": one["state"],
        "health": one["health"],
        "why": one["why"],
        "release": one["release"],
        "pid": one["pid"] if runs else None,
        "uptime": one["uptime"] if runs else None,
        "restarts": one["restarts"],
        "memory": one["memory"] if runs else None,
        "active": one["active"] if works else None,
        "slots": one["slots"] if works else None,
        "reserved": one["reserved"] if works else None,
        "queues": one["queues"],
        "paused": one.get("paused") or [],
        "retiring": one["retires"],
    }


def broker(result: Result) -> dict[str, Any] | None:
    """Return the broker on a host; None where there is none."""
    if not result.get("broker") and not result.get("nodes"):
        return None
    alarms, states = result.get("alarms") or [], result.get("cluster") or {}
    nodes = {node["name"]: node for node in result.get("nodes") or []}
    return {
        "version": result.get("broker", ""),
        "nodes": [
            {
                "name": name,
                "state": states.get(name, "running"),
                **{key: nodes.get(name, {}).get(key) for key in ("memory", "memory_limit", "disk_free", "disk_limit")},
                "alarms": [one["alarm"] for one in alarms if one["node"] == name],
            }
            for name in sorted({*states, *nodes})
        ],
    }


def store(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result store on a host; None for what it did not tell."""
    keys = ("version", "role", "memory", "memory_limit", "keys", "evicted")
    return {
        "reachable": seen["reachable"],
        "why": seen["why"],
        **{key: seen.get(key) for key in keys},
        "faults": list(seen.get("faults") or []),
    }


def flower(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return Flower on a host; None for what it has not while it does not run."""
    return {**seen, **{key: seen[key] if seen["pid"] else None for key in ("pid", "uptime", "memory")}}


def deploy(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of the audit log."""
    return {
        **picked(entry, "action", "at", "who", "from", "to", "outcome", "commit"),
        "changed": list(entry.get("changed") or []),
        "seconds": dict(entry.get("seconds") or {}),
    }


def picked(given: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return these keys of a mapping; empty text for one that is not there."""
    return {key: given.get(key, "") for key in keys}


def moment(at: float | None) -> str | None:
    """Return a Unix time as ISO 8601 in UTC."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
