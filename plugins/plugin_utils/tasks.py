"""The verb `tasks`: what is asked, whether it can be, and what to show."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS, boolean
from ansible_collections.celery_ops.kit.plugins.module_utils import task_lists
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import TIME_LIMITS, soft_limit
from ansible_collections.celery_ops.kit.plugins.module_utils.task_lists import Chosen
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of

LISTS, ASKED, SENT = "__celery_app_tasks", "__celery_app_tasks_asked", "__celery_app_tasks_sent"
DELAYED = "__celery_app_tasks_delayed"
"""What earlier tasks of the run registered."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
RATE = re.compile(r"0|\d+(\.\d+)?(/[smh])?")
SIGNAL = re.compile(r"SIG[A-Z0-9]+")
ACTIONS = ("list", "revoke", "terminate", "rate_limit", "time_limit")


def tasks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is `wrong` with what is asked, the `words` of its command, those that `note` it, and the `text`."""
    workers = lists_of(variables)
    there = [one for found in workers.values() for one in found]
    wrong = mistake(variables, task_lists.ids(there), {one["program"] for one in there})
    return {
        "wrong": wrong,
        "words": [] if wrong else words(variables),
        "note": [] if wrong else ["celery-ops-tasks", "note", *by_id(variables)],
        "what": f"{variables['celery_app_tasks']} {subject(variables)}",
        "text": "" if wrong else text(variables, workers),
    }


def lists_of(variables: Mapping[str, Any]) -> dict[str, task_lists.TaskLists]:
    """Return the lists of each host that was read."""
    return {host: answer["workers"] for host, answer in results_of(variables, LISTS).items() if "workers" in answer}


def ids_of(variables: Mapping[str, Any]) -> list[str]:
    """Return the ids that are meant."""
    return [part.strip() for part in str(variables["celery_app_tasks_id"]).split(",") if part.strip()]


def subject(variables: Mapping[str, Any]) -> str:
    """Return which tasks it is about, and to what they are limited."""
    what = variables["celery_app_tasks"]
    if what in ("revoke", "terminate"):
        return " ".join(ids_of(variables))
    to = {"rate_limit": "celery_app_tasks_rate", "time_limit": "celery_app_tasks_limit"}.get(what)
    return f"{variables['celery_app_tasks_name']} to {variables[to]}" if to else ""


def limit(variables: Mapping[str, Any]) -> float:
    """Return the seconds to which a task is limited; 0 for what is no number."""
    try:
        return float(variables["celery_app_tasks_limit"])
    except ValueError:
        return 0.0


def mistake(variables: Mapping[str, Any], seen: Iterable[str], programs: Iterable[str]) -> str:
    """Return why this can't be asked; empty where it can. `seen` are the ids that workers have, by their `programs`."""
    what, name = variables["celery_app_tasks"], str(variables["celery_app_tasks_name"])
    again = "List the tasks: ansible-playbook playbooks/tasks.yml"
    if what not in ACTIONS:
        return f"celery_app_tasks: {what!r} is none of {', '.join(ACTIONS)}"
    if str(variables["celery_app_tasks_arguments"]).lower() not in BOOLEANS:
        return f"celery_app_tasks_arguments: {variables['celery_app_tasks_arguments']!r} is neither true nor false"
    program, known = str(variables["celery_app_tasks_program"]), sorted(programs)
    if program and known and not fnmatch.filter(known, program):
        return f"celery_app_tasks_program: no worker is called {program!r}. Available: {', '.join(known)}"
    if what in ("revoke", "terminate"):
        if not (ids := ids_of(variables)):
            return f"celery_app_tasks_id: name the task to {what}, or several with commas between. {again}"
        for one in ids:
            if why := no_id(one, seen):
                return f"celery_app_tasks_id: {one!r} {why}. {again}"
        if not SIGNAL.fullmatch(str(variables["celery_app_tasks_signal"])):
            return f"celery_app_tasks_signal: {variables['celery_app_tasks_signal']!r} is not a signal. Write SIGTERM"
    if what in ("rate_limit", "time_limit") and (not name or re.search(r"[*?\s]", name)):
        return f"celery_app_tasks_name: write the name of one task to limit, such as shop.tasks.report; it is {name!r}"
    if what == "rate_limit" and not RATE.fullmatch(str(variables["celery_app_tasks_rate"])):
        rate = variables["celery_app_tasks_rate"]
        return f"celery_app_tasks_rate: {rate!r} is not a rate. Write 10/s, 10/m, 10/h, or 0 for none"
    if what == "time_limit" and not TIME_LIMITS[0] <= limit(variables) <= TIME_LIMITS[1]:
        return f"celery_app_tasks_limit: {variables['celery_app_tasks_limit']} is not a limit. Write seconds, 2 or more"
    return ""


def no_id(text: str, seen: Iterable[str]) -> str:
    """Return why this can't be a task's id; empty where it can."""
    if text in seen or UUID.fullmatch(text):
        return ""
    if re.fullmatch(r"[0-9a-fA-F-]+(…|\.{3})?", text):
        return "is a part of an id. Write the whole one, 36 characters"
    if not re.fullmatch(r"[\w:@/+=-]{1,255}", text):
        # Ids of an application's own form are fine; a dot is what a task's name has.
        return "is not the id of a task that a worker has, and looks like none; a task's name is not its id"
    return ""


def words(variables: Mapping[str, Any]) -> list[str]:
    """Return the command that tells the workers, or asks the broker for what it alone knows."""
    what, module = variables["celery_app_tasks"], str(variables["celery_app_module"])
    command = ["celery-ops-tasks", "ask" if what == "list" else what, "-A", module]
    if what == "list":
        return command + (["--arguments"] if boolean(variables["celery_app_tasks_arguments"]) else [])
    if what in ("revoke", "terminate"):
        return [*command, *by_id(variables), "--signal", str(variables["celery_app_tasks_signal"])]
    command += ["--name", str(variables["celery_app_tasks_name"])]
    if what == "rate_limit":
        return [*command, "--rate", str(variables["celery_app_tasks_rate"])]
    hard = limit(variables)
    return [*command, "--hard", f"{hard:.15g}", "--soft", f"{soft_limit(int(hard)):.15g}"]


def by_id(variables: Mapping[str, Any]) -> list[str]:
    """Return the options that name the tasks."""
    return [word for one in ids_of(variables) for word in ("--id", one)]


def text(variables: Mapping[str, Any], workers: Mapping[str, task_lists.TaskLists]) -> str:
    """Return what to show: the lists, or what came of what was asked."""
    if variables["celery_app_tasks"] == "list":
        return "\n".join(listed(variables, workers))
    if variables["ansible_check_mode"]:
        return f"would {variables['celery_app_tasks']} {subject(variables)} (check mode)"
    if not (variables.get(SENT) or {}).get("stdout"):
        return ""  # not sent as yet
    return "\n".join(outcome(variables, workers, json.loads(variables[SENT]["stdout"])["answers"]))


def listed(variables: Mapping[str, Any], workers: Mapping[str, task_lists.TaskLists]) -> list[str]:
    """Return the lists of all hosts, and what the broker says."""
    asked = variables.get(ASKED) or {}
    found = json.loads(asked["stdout"]) if asked.get("rc") == 0 else {"delayed": [], "arguments": {}}
    chosen = Chosen(
        str(variables["celery_app_tasks_name"]),
        str(variables["celery_app_tasks_program"]),
        ",".join(ids_of(variables)),
    )
    times = [answer["time"] for host in workers if (answer := variables["hostvars"][host][LISTS])]
    arguments = found["arguments"] if boolean(variables["celery_app_tasks_arguments"]) else None
    lines = task_lists.lines(workers, chosen, max(times, default=0.0), arguments)
    idle = [host for host, there in workers.items() if not there]
    lines += [f"{host}: no worker runs. Look: ansible-playbook playbooks/status.yml" for host in idle]
    if asked.get("rc") == 0:
        total = sum(count for _, count in found["delayed"])
        parts = [f"{count} due within {task_lists.span(seconds)}" for seconds, count in found["delayed"]]
        lines.append(f"SCHEDULED in the broker: {total}{': ' if parts else ''}{', '.join(parts)}")
        return [*lines, *(by_queue(variables.get(DELAYED) or {}, chosen) if total else [])]
    reason = (asked.get("stderr_lines") or [asked.get("msg") or "not asked"])[-1]
    return [*lines, f"SCHEDULED in the broker: not known ({reason}). Look: ansible-playbook playbooks/status.yml"]


def by_queue(seen: Mapping[str, Any], chosen: Chosen) -> list[str]:
    """Return for each queue how many tasks are to come, and the next one; or why that is not known."""
    if not seen.get("tasks"):
        why = str(seen.get("msg") or "the delay queues are at a broker of somebody else's, or no quorum queues")
        return [f"  for which queues, and when, can't be seen: {why.splitlines()[0]}"]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for task in seen["tasks"]:
        if chosen.takes(chosen.program, task):
            found.setdefault(task["queue"], []).append(task)
    lines = []
    for queue, tasks in sorted(found.items()):
        following = min(tasks, key=lambda task: moment(task["eta"]))
        lines.append(
            f"  for {queue}: {len(tasks)}, the next at {following['eta']}: {following['name']} {following['id']}"
        )
    return [*lines, *(["  Of each delay queue its first 50 were looked at; there are more."] if seen["more"] else [])]


def moment(eta: str) -> float:
    """Return a task's time as Unix time; the end of all times for what is none."""
    with suppress(ValueError):
        return datetime.fromisoformat(eta).timestamp()
    return math.inf


def outcome(
    variables: Mapping[str, Any], workers: Mapping[str, task_lists.TaskLists], answers: Mapping[str, Any]
) -> list[str]:
    """Return what came of it, the outcome last."""
    what, name = variables["celery_app_tasks"], variables["celery_app_tasks_name"]
    nodes = {
        f"{one['generation']}@{host}": f"{host} {one['program']}" for host, all_ in workers.items() for one in all_
    }
    silent = [label for node, label in nodes.items() if node not in answers]
    refused = [f"{node}: {said['error']}" for node, said in answers.items() if "error" in (said or {})]
    lines = [*refused]
    if silent:
        lines.append(
            f"No answer from {', '.join(silent)}: a solo pool answers after its task, one that drains does not answer."
        )
    if what in ("revoke", "terminate"):
        lines.append("Kept on these hosts for 30 days: workers that start later refuse the task, too.")
        if what == "revoke":
            lines.append("A task that runs already goes on: to end it, -e celery_app_tasks=terminate.")
    elif what == "rate_limit":
        lines.append(
            "For each worker, until it restarts: a deploy ends it. To keep it, write in the application: "
            f"app.conf.task_annotations = {{{name!r}: {{'rate_limit': {str(variables['celery_app_tasks_rate'])!r}}}}}"
        )
    else:
        lines.append(
            "For tasks that arrive from now on, until a worker restarts: a deploy ends it. To keep it, write in the "
            f"inventory: celery_app_task_time_limit: {math.ceil(limit(variables))}. "
            "Thread and solo pools ignore time limits."
        )
    return [*lines, f"{what} {subject(variables)}: {len(answers) - len(refused)} of {len(nodes)} workers answered"]
