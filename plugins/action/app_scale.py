"""Say which line of the inventory scales a program, with what it runs now, and what to type."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from itertools import chain
from os import environ
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONCURRENCY, Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import shortest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import names_in
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    worker_programs,
    worker_programs_of_hosts,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of, said

LOOK = "__celery_app_scale_look"
MOST = 1000
UNTIL = "celery_app_scale_until"
KEPT = ("ANSIBLE_CONFIG", "ANSIBLE_HOME", "ANSIBLE_VAULT_PASSWORD_FILE", "SSH_AUTH_SOCK")
"""What a timer's command needs of this environment, where it is set."""
EXAMPLE = "-e celery_app_scale=default=6"


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node; changes nothing.

    A number that was changed on the hosts alone, the next deploy would undo without a word; and a pool that grows while
    it runs gets no more tasks than before from quorum queues. A number for a time only is an extra variable of one
    deploy: the next deploy without it ends it, and a timer of the control node can type that one.
    """

    def act(self) -> dict[str, Any]:
        """Fail with the lines to write; succeed where the inventory and the workers have these numbers."""
        variables = self.variables
        wanted = numbers(variables)
        until = end_of(str(variables["celery_app_scale_until"]), datetime.now())
        if until:
            refuse_different_hosts(variables)
        looks = results_of(variables, LOOK)
        files = list(files_of(variables["ansible_inventory_sources"]))
        lines = [advice(entry, number, variables, looks, files) for entry, number in wanted]
        if until:
            lines = [*(running(entry, variables, looks) for entry, _ in wanted), *rush_hour(wanted, variables, until)]
        done = all(is_done(entry, number, variables, looks) for entry, number in wanted)
        return said("\n".join(lines), failed=not done or bool(until))


def numbers(variables: Mapping[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Return the entries of celery_worker_programs to scale, and how many tasks each is to run at a time.

    Raises OperatorError for what can't be.
    """
    given = str(variables["celery_app_scale"])
    pairs = [text.partition("=") for text in names_in(variables["celery_app_scale"])]
    if not pairs or not all(re.fullmatch(r"[0-9]{1,4}", number) and 0 < int(number) <= MOST for _, _, number in pairs):
        raise OperatorError(
            f"celery_app_scale is {given!r}: it has to be program=number, up to {MOST} tasks "
            "at a time, several with commas between. Nothing was changed. Type: ansible-playbook playbooks/scale.yml "
            f"{EXAMPLE}"
        )
    # A program of other hosts alone is one, too; where hosts differ, this one's entry counts.
    lists = [*worker_programs_of_hosts(variables), worker_programs(variables)]
    entries = {str(entry["name"]): entry for entry in chain(*lists)}
    scalable = [name for name, entry in entries.items() if entry.get("pool") != "solo"]
    for name, _, _ in pairs:
        if name not in scalable:
            why = "its pool, solo, runs one task" if name in entries else "it is not an entry of celery_worker_programs"
            raise OperatorError(
                f"celery_app_scale: {name} has no number of tasks at a time: {why}. Nothing was changed. "
                f"Available: {', '.join(scalable) or 'none that has'}"
            )
    return [(entries[name], int(number)) for name, _, number in pairs]


def concurrency_of(entry: Mapping[str, Any]) -> int | None:
    """Return the tasks at a time that the inventory gives an entry, as text or not; None where it follows the load."""
    return None if "autoscale" in entry else int(entry.get("concurrency", CONCURRENCY))


def slots(
    entry: Mapping[str, Any], variables: Mapping[str, Any], looks: Mapping[str, Any]
) -> list[tuple[str, int, int]]:
    """Return host, slots and running tasks of each worker of an entry."""
    program = Layout(variables["celery_app_name"]).worker(str(entry["name"]))
    return [
        (host, worker.get("slots") or 0, worker.get("active") or 0)
        for host, look in looks.items()
        for worker in look["workers"]
        if worker["program"] == program and worker["state"] == "ready"
    ]


def is_done(entry: Mapping[str, Any], number: int, variables: Mapping[str, Any], looks: Mapping[str, Any]) -> bool:
    """Whether the inventory and each worker of an entry have that number."""
    return concurrency_of(entry) == number and is_live(entry, number, variables, looks)


def is_live(entry: Mapping[str, Any], number: int, variables: Mapping[str, Any], looks: Mapping[str, Any]) -> bool:
    """Whether each worker of an entry runs that many tasks at a time."""
    found = slots(entry, variables, looks)
    return bool(found) and all(now == number for _, now, _ in found)


def end_of(text: str, now: datetime) -> datetime | None:
    """Return the moment that is meant: a time, today or tomorrow, or a date and a time; None for none.

    Raises OperatorError.
    """
    if not text:
        return None
    day, _, clock = text.strip().replace("T", " ").rpartition(" ")
    with suppress(ValueError, TypeError):  # the latter of a zone
        end = datetime.combine(date.fromisoformat(day) if day else now.date(), time.fromisoformat(clock))
        if end > now:
            return end
        if not day:
            return end + timedelta(days=1)
    raise OperatorError(
        f"celery_app_scale_until is {text!r}: it has to be a time to come, by the clock of the control node, such as "
        "18:00 or 2026-11-26T18:00. Nothing was changed."
    )


def refuse_different_hosts(variables: Mapping[str, Any]) -> None:
    """Raise OperatorError where hosts have different programs: an extra variable is the same for all."""
    lists = list(worker_programs_of_hosts(variables))
    if any(one != lists[0] for one in lists):
        raise OperatorError(
            "celery_app_scale_until: the hosts have different celery_worker_programs, and an extra variable would give "
            f"all of them the same. Nothing was changed. Write the number into the inventory: leave {UNTIL} out, and "
            "this says where"
        )


def rush_hour(wanted: Iterable[tuple[dict[str, Any], int]], variables: Mapping[str, Any], until: datetime) -> list[str]:
    """Return what to type for numbers that end by themselves."""
    number_of = {str(entry["name"]): number for entry, number in wanted}
    programs = [
        {**entry, **slots_key(entry, number_of[str(entry["name"])])} if str(entry["name"]) in number_of else entry
        for entry in worker_programs(variables)
    ]
    extra = shlex.quote(json.dumps({"celery_worker_programs": programs}, separators=(",", ":")))
    kept = [
        f'--setenv={name}="${name}"'
        for name in ("PATH", "HOME", *KEPT)
        if name in ("PATH", "HOME") or environ.get(name)
    ]
    timer = " ".join([f"systemd-run --on-calendar='{until:%Y-%m-%d %H:%M:%S}' --working-directory=\"$PWD\"", *kept])
    return [
        "Nothing was changed. A number that ends is one deploy with it, and another one without it. Type now:",
        f"  ansible-playbook playbooks/deploy.yml -e {extra}",
        "and, on the control node, so that the inventory's numbers come back by themselves:",
        f"  {timer} ansible-playbook playbooks/deploy.yml",
        "Any deploy before that ends them, too. Both deploy what the inventory names, new commits as well. What the "
        "timer did: journalctl -u 'run-*'",
    ]


def slots_key(entry: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the key of an entry that gives it this number."""
    if "autoscale" in entry:
        return {"autoscale": f"{number},{str(entry['autoscale']).partition(',')[2] or '1'}"}
    return {"concurrency": number}


def running(entry: Mapping[str, Any], variables: Mapping[str, Any], looks: Mapping[str, Any]) -> str:
    """Return what a program runs now."""
    found = [f"{active} of {now} slots busy on {host}" for host, now, active in slots(entry, variables, looks)]
    return f"scale: {entry['name']} has {', '.join(found) or 'no worker that is ready'}."


def advice(
    entry: Mapping[str, Any],
    number: int,
    variables: Mapping[str, Any],
    looks: Mapping[str, Any],
    files: Iterable[Path],
) -> str:
    """Return what a program runs now, and what to write where."""
    name = str(entry["name"])
    now = running(entry, variables, looks)
    if concurrency_of(entry) == number:
        if is_live(entry, number, variables, looks):
            return f"{now} The inventory says {number}: nothing to do."
        if not slots(entry, variables, looks):
            return f"{now} The inventory says {number} already. Look: ansible-playbook playbooks/status.yml"
        return f"{now} The inventory says {number} already. Type: ansible-playbook playbooks/deploy.yml"
    [line] = [f"{key}: {value}" for key, value in slots_key(entry, number).items()]
    # Without a word on it, the entry has the default.
    former = next((f"{key}: {entry[key]}" for key in ("autoscale", "concurrency") if key in entry), "")
    before = f"write {former} there again" if former else f"take {line} out again"
    where = ", ".join(places(name, files)) or "it is not set in a file of the inventory: the role's default applies"
    return (
        f"{now} Nothing was changed: the number is the inventory's, so that no deploy undoes it. Write {line} in the "
        f"entry {name} of celery_worker_programs ({where}), then type: ansible-playbook playbooks/deploy.yml. To "
        f"undo it after a rush hour: {before}, and the same command"
    )


def files_of(sources: Iterable[str]) -> Iterator[Path]:
    """Yield the YAML files of the inventories: they themselves, and the variables beside them."""
    for source in map(Path, sources):
        directory = source if source.is_dir() else source.parent
        yield from [source] if source.is_file() else []
        for part in ("group_vars", "host_vars", *(["."] if source.is_dir() else [])):
            found = (directory / part).glob("*" if part == "." else "**/*")
            yield from sorted(path for path in found if path.suffix in (".yml", ".yaml", "") and path.is_file())


def places(name: str, files: Iterable[Path]) -> list[str]:
    """Return where the entry of a program is written, as file:line."""
    found = []
    for path in dict.fromkeys(files):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        begins = next(
            (number for number, line in enumerate(lines) if re.match(r"\s*celery_worker_programs:", line)), None
        )
        if begins is not None:
            wanted = re.compile(rf"""\bname:\s*["']?{re.escape(name)}["']?\s*([,}}#]|$)""")
            at = next((number for number in range(begins, len(lines)) if wanted.search(lines[number])), begins)
            found.append(f"{shortest(str(path))}:{at + 1}")
    return found
