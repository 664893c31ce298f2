"""What a pause or its end is about: entries made of variables, what is refused, and one line on what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.log_lines import seconds as seconds_in
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import names_in, refuse_unknown_programs
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import worker_programs_of_hosts

LONGEST = 30 * 86400
SCHEDULER = "scheduler"

Entry = dict[str, Any]


def seconds_of(text: Any) -> int | None:
    """Return the seconds of a time as `celery_app_logs_since` takes it; None for nothing. Raises OperatorError."""
    written = str(text or "").strip()
    if not written:
        return None
    try:
        seconds = seconds_in(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= LONGEST:
        raise OperatorError(
            f"celery_app_pause_for is {written!r}: it has to be a time up to 30 days, such as 90s, 30min, 2h or 1d. "
            "Nothing was changed. Leave it out to pause until resume.yml"
        )
    return seconds


def named(variables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the variables name, as (what, name); all that the run's hosts have where they name nothing.

    Raises OperatorError for a program that there is not, or that has no intake.
    """
    refuse_guess(variables)
    layout = Layout(variables["celery_app_name"])
    queues, programs = (names_in(variables[f"celery_app_pause_{one}"]) for one in ("queue", "program"))
    refuse_unknown_programs("celery_app_pause_program", programs, variables)
    entries_of_all = chain(variables["celery_worker_programs"], *worker_programs_of_hosts(variables))
    workers = {str(entry["name"]) for entry in entries_of_all}  # one of them may be called web
    for name in programs:
        if name in ("web", "web-listener", "watchdog") and name not in workers:
            raise OperatorError(
                f"celery_app_pause_program: {name} takes no tasks. Nothing was changed. "
                "Available: the names of celery_worker_programs, and scheduler"
            )
    found = [("queue", queue) for queue in queues]
    found += [("program", layout.worker(name)) for name in programs if name != SCHEDULER]
    if not found and programs != [SCHEDULER]:
        found = [whole(variables)]
    if SCHEDULER in programs or boolean(variables["celery_app_pause_scheduler"]):
        found.append((SCHEDULER, ""))
    return found


def of_verb(variables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what maintenance, and a deploy that stops everything, close: intake, schedule and web."""
    return [whole(variables), (SCHEDULER, ""), ("web", "")]


def whole(variables: Mapping[str, Any]) -> tuple[str, str]:
    """Return what means all of the run's hosts: everything, or this host where the run has some hosts only."""
    is_all = set(variables["ansible_play_hosts_all"]) >= set(app_hosts(variables["groups"]))
    return ("all", "") if is_all else ("host", variables["inventory_hostname"])


def is_about_all(variables: Mapping[str, Any]) -> bool:
    """Whether the variables name nothing: no queue, no program."""
    return not any(names_in(variables[f"celery_app_pause_{one}"]) for one in ("queue", "program"))


def entries(variables: Mapping[str, Any], who: str, about_what: Iterable[tuple[str, str]]) -> list[Entry]:
    """Return the entries of a pause that begins now."""
    now, seconds = round(time.time(), 1), seconds_of(variables["celery_app_pause_for"])
    about = {"since": now, "until": now + seconds if seconds else None, "who": who}
    why = str(variables["celery_app_pause_why"])
    return [{"what": what, "name": name, **about, "why": why} for what, name in about_what]


def refuse_unknown_queues(variables: Mapping[str, Any], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise OperatorError for a queue that neither a worker of the run's hosts nor the inventory has."""
    consumed = {queue for look in looks.values() for worker in look["workers"] for queue in worker["queues"]}
    # Of a worker that does not come up, too: that may be why its queue is to be paused.
    programs = chain(variables["celery_worker_programs"], *worker_programs_of_hosts(variables))
    known = sorted({*consumed, *(str(queue) for program in programs for queue in program.get("queues") or ())})
    for name in names_in(variables["celery_app_pause_queue"]):
        if name not in known:
            raise OperatorError(
                f"celery_app_pause_queue: no worker of these hosts consumes from a queue {name}. Nothing was changed. "
                f"Available: {', '.join(known) or 'none'}. A program is paused whether or not it runs: "
                "-e celery_app_pause_program=<name>"
            )


def refuse_guess(variables: Mapping[str, Any]) -> None:
    """Raise OperatorError for a name that looks like the variable: where none is given, everything is meant."""
    if meant := variables.get("celery_app_pause"):
        raise OperatorError(
            f"celery_app_pause is not a variable, and without a name everything would be meant. Nothing was changed. "
            f"Write -e celery_app_pause_queue={meant} or -e celery_app_pause_program={meant}"
        )


def refuse_not_paused(variables: Mapping[str, Any], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise OperatorError where a resume names what is not paused on any host of the run."""
    refuse_guess(variables)
    there = [one for look in looks.values() for one in look["entries"] if not one.get("by")]
    for what, name in [] if is_about_all(variables) else named(variables):
        if not any((one["what"], one["name"]) == (what, name) for one in there):
            raise OperatorError(
                f"{words({'what': what, 'name': name})} is not paused by itself on these hosts. Nothing was changed. "
                f"Paused: {', '.join(sorted({words(one) for one in there})) or 'nothing'}"
            )


def words(entry: Mapping[str, Any]) -> str:
    """Return what an entry is about."""
    kinds = {"all": "everything", "scheduler": "the scheduler", "web": "the web (503)"}
    return kinds.get(entry["what"]) or f"{entry['what']} {entry['name']}"


def outcome(
    verb: str, results: Mapping[str, Mapping[str, Any]], *, all_hosts: bool = True, silent: Iterable[str] = ()
) -> tuple[str, list[str]]:
    """Return the line on what is paused and what still runs, and the workers that do not heed it yet.

    `all_hosts`: whether the run is about all hosts of the application, so that "nothing" means nothing anywhere.
    `silent` are hosts of the run that have not answered.
    """
    silent = list(silent)
    lost = f" Nothing was changed on {', '.join(silent)}, see above: run it again when that is fixed." if silent else ""
    paused: dict[str, list[str]] = {}
    for host, result in results.items():
        for one in result["entries"]:
            until = f" until {clock(one['until'])}" if one.get("until") else ""
            paused.setdefault(words(one) + until, []).append(host)
    running = [
        f"{worker['program']} on {host} {worker['active']} tasks"
        + (f", the oldest since {clock(worker['oldest'])}" if worker.get("oldest") else "")
        for host, result in results.items()
        for worker in result["workers"]
        if worker.get("active")
    ]
    late = [f"{name} on {host}" for host, result in results.items() for name in result["late"]]
    there = "; ".join(f"{what} on {', '.join(hosts)}" for what, hosts in paused.items())
    few = "" if silent else " (the run is about no other host)"
    there = there or ("nothing" if all_hosts and not silent else f"nothing on {', '.join(results)}{few}")
    return f"{verb}: paused is {there}. Still running: {'; '.join(running) or 'nothing'}.{lost}", late


def clock(moment: float) -> str:
    """Return a moment in UTC, which is the same for all hosts and readers."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def changed_words(given: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what the audit log says of entries."""
    return [words(one) for one in given]
