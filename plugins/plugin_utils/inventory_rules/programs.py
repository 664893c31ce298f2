"""Rules for what Supervisor is to run: worker programs, scheduler, web, and the commands of a deploy."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import web_servers
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    ARGUMENT,
    Host,
    Mistake,
    bytes_of,
    did_you_mean,
    is_int,
    nearest,
    not_among,
    shown,
    wrong,
)

KEYS = ("name", "queues", "concurrency", "pool", "options", "handover", "time_limit", "autoscale", "max_memory")
HANDOVERS = ("overlap", "rolling", "replace")
LEAST_MEMORY = 64 << 20
MOST = {"prefork": 512, "solo": 1}
MOST_THREADS = 10_000
# Queues of the broker's and the kit's own.
HOUSEKEEPING = re.compile(rf"{layout.HOUSEKEEPING_QUEUES}|.*{re.escape(layout.DEAD)}")

# Options that the kit sets itself, or that would undo what it does, and why they are not for others.
TAKEN = {
    ("-A", "--app"): "use celery_app_module",
    ("-b", "--broker", "--result-backend"): "use celery_app_broker_host and celery_app_result_store_host",
    ("--workdir", "--uid", "--gid"): "they follow from the release and celery_app_name",
    ("--pidfile",): "the guard owns the pidfile",
    ("-D", "--detach"): "Supervisor needs its programs in the foreground",
    ("-f", "--logfile"): "Supervisor writes and rotates the log",
    ("-n", "--hostname"): "the node's name is the program's, with its generation",
    ("-s", "--schedule", "--schedule-filename"): "the kit sets the schedule file",
}
TAKEN_BY_WORKER = TAKEN | {
    ("-Q", "--queues", "-X", "--exclude-queues"): "use the key queues",
    ("-c", "--concurrency"): "use the key concurrency",
    ("--autoscale",): "use the key autoscale",
    ("-P", "--pool"): "use the key pool",
    ("-I", "--include"): "the kit includes its own tasks by it; import yours in the application",
    ("--time-limit", "--soft-time-limit"): "use the key time_limit, or celery_app_task_time_limit for all programs",
    ("-B", "--beat", "--scheduler"): "the group scheduler runs beat, once",
    ("--purge", "--discard"): "it would throw waiting tasks away at every start",
}
TOO_LONG = f"Linux starts no program with an argument of more than {ARGUMENT}"
SHELL = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"})


def workers(host: Host) -> Iterator[Mistake]:
    """The worker programs, one by one, and their names among each other."""
    variable, entries, app = "celery_worker_programs", host["celery_worker_programs"], host.text("celery_app_name")
    if entries is None:
        return
    if not entries and "worker" in host.groups:
        problem = f"{host.name} is in the group worker, and would have nothing to run."
        yield wrong(variable, entries, problem, "[{name: default, concurrency: 2}]")
    for index, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            text = f"{variable}, entry {index} is {shown(entry)}: it has to be a mapping."
            yield Mistake(variable, f"{text} Write: {{name: default, queues: [{app}], concurrency: 2}}")
            continue
        for text in worker(entry, app):
            yield Mistake(variable, f"{variable}, {entry.get('name') or f'entry {index}'}: {text}")
    names = Counter(str(entry["name"]) for entry in entries if isinstance(entry, Mapping) and entry.get("name"))
    for name in sorted(name for name, count in names.items() if count > 1):
        text = (
            f"{variable}: name {name} is there {names[name]} times; each needs a name of its own. Write: name: {name}_2"
        )
        yield Mistake(variable, text)


def worker(entry: Mapping[str, Any], app: str) -> Iterator[str]:
    """What is wrong with one worker program."""
    for key in entry:
        if key not in KEYS:
            asked = did_you_mean(key, KEYS)
            yield f"unknown key {shown(key)}; {asked} " + (
                f"Write: {nearest(key, KEYS)}: ..." if "?" in asked else f"Leave {key} out."
            )
    name = entry.get("name")
    if not name:
        yield "it has no name. Write: name: default"
    elif not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,30}", str(name)):
        fix = re.sub(r"[^a-z0-9_]+", "_", str(name).lower()).strip("_")[:31] or "default"
        yield f"name may hold lowercase letters, digits and _, at most 31 of them. Write: name: {fix}"
    if "queues" in entry:
        yield from queues(entry["queues"], app)
    pool = entry.get("pool", "prefork")
    if pool not in layout.POOLS:
        problem, fix = not_among(pool, layout.POOLS)
        yield f"pool is {shown(pool)}; {problem} Write: pool: {fix}"
    concurrency, most = entry.get("concurrency", 1), MOST.get(str(pool), MOST_THREADS)
    if not is_int(concurrency) or not 1 <= int(concurrency) <= most:
        problem = f"with pool {pool} it has to be a whole number from 1 to {most}"
        yield f"concurrency is {shown(concurrency)}; {problem}. Write: concurrency: {min(most, 2)}"
    yield from options(entry.get("options", []), TAKEN_BY_WORKER)
    handover, limit = entry.get("handover", "overlap"), entry.get("time_limit", layout.TIME_LIMITS[0])
    if handover not in HANDOVERS:
        problem, fix = not_among(handover, HANDOVERS)
        yield f"handover is {shown(handover)}; {problem} Write: handover: {fix}"
    if not is_int(limit) or not layout.TIME_LIMITS[0] <= int(limit) <= layout.TIME_LIMITS[1]:
        problem = f"it has to be a whole number of seconds from {layout.TIME_LIMITS[0]} to {layout.TIME_LIMITS[1]}"
        yield f"time_limit is {shown(limit)}; {problem}. Write: time_limit: 7200"
    if "autoscale" in entry:
        yield from autoscale(entry)
    if "max_memory" in entry and layout.size(str(entry["max_memory"])) < LEAST_MEMORY:
        problem = f"it has to be a size, of {LEAST_MEMORY >> 20}M at least: a worker takes that much when it starts"
        yield f"max_memory is {shown(entry['max_memory'])}; {problem}. Write: max_memory: 500M"


def autoscale(entry: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a number of processes that follows the load."""
    found = re.fullmatch(r"([0-9]{1,5}),([0-9]{1,5})", str(entry["autoscale"]))
    most, least = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= least <= most <= MOST["prefork"]:
        problem = f"it has to be the most and the least processes, as Celery takes them, from 1 to {MOST['prefork']}"
        yield f"autoscale is {shown(entry['autoscale'])}; {problem}. Write: autoscale: 10,2"
    if entry.get("pool", "prefork") != "prefork":
        yield f"autoscale works with pool prefork, not {entry['pool']}. Leave autoscale out."
    if "concurrency" in entry:
        yield "autoscale and concurrency both say how many tasks run at a time. Leave concurrency out."


def queues(names: Any, app: str) -> Iterator[str]:
    """What is wrong with the queues of a worker program."""
    if not names:
        yield f"its queues are empty. Write: queues: [{app}], or leave queues out: the application's own"
    elif not isinstance(names, list):
        yield f"queues is {shown(names)}; it has to be a list. Write: queues: [{str(names).replace(',', ', ')}]"
    else:
        if (size := bytes_of(",".join(map(str, names)))) > ARGUMENT:
            yield f"its queues are {size} bytes together; {TOO_LONG}. Leave some to another program"
        for name in names:
            if not isinstance(name, (str, int)) or isinstance(name, bool):
                yield f"queue {shown(name)} is not text. Write it in quotes: queues: [{shown(str(name))}]"
        for name in dict.fromkeys(map(str, names)):
            if HOUSEKEEPING.fullmatch(name):
                yield f"queue {shown(name)} is one of the broker's or the kit's own. Write: queues: [{app}]"
            elif "," in name:  # Celery's -Q takes it for several
                parts = [part.strip() for part in name.split(",") if part.strip()]
                yield f"queue {shown(name)} is several. Write: queues: {shown(parts)}"
            elif name != name.strip() or not name.isprintable() or not 0 < len(name.encode()) <= 255:
                problem = "RabbitMQ takes 1 to 255 bytes, and Celery no spaces at its ends and nothing unprintable"
                fix = "".join(char for char in name if char.isprintable()).strip()[:60] or app
                yield f"queue {shown(name)}: {problem}. Write: queues: [{shown(fix)}]"
            elif [str(each) for each in names].count(name) > 1:
                yield f"queue {shown(name)} is there more than once. Write: queues: {shown(list(dict.fromkeys(names)))}"


def options(words: Any, taken: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """What is wrong with further options of a program."""
    if not isinstance(words, list):
        yield f"options is {shown(words)}; it has to be a list of words. Write: options: {shown(str(words).split())}"
        return
    for word in words:
        if (size := bytes_of(word)) > ARGUMENT:
            yield f"options hold {shown(word)}, of {size} bytes; {TOO_LONG}. Write it into a file of your source"
        elif not isinstance(word, (str, int, float)) or "\n" in str(word):
            fix = '[--max-tasks-per-child, "20"]'
            yield f"options hold {shown(word)}; each is a word in one line. Write: options: {fix}"
        elif re.match(r"--?[A-Za-z][\w-]*\s", str(word)):
            yield f"options hold {shown(word)}, which is two words. Write: options: {shown(str(word).split(None, 1))}"
    for word, why in taken_among(map(str, words), taken):
        yield f"{word} is not allowed in options: {why}. Leave {word} out."


def taken_among(words: Iterator[str] | list[str], taken: Mapping[tuple[str, ...], str]) -> Iterator[tuple[str, str]]:
    """Those words of a command line that are options of the kit's, and why they are."""
    for word in words:
        option = re.match(r"--[\w-]+|-[A-Za-z]|", word)[0]
        for names, why in taken.items():
            if option in names:
                yield word, why


def scheduler(host: Host) -> Iterator[Mistake]:
    """Further options of beat."""
    for text in options(host["celery_scheduler_options"] or [], TAKEN):
        yield Mistake("celery_scheduler_options", f"celery_scheduler_options: {text}")


def web(host: Host) -> Iterator[Mistake]:
    """The web program stays in the foreground and takes the socket that it is given."""
    line = host.text("celery_web_command")
    mistakes = list(command("celery_web_command", line))
    yield from mistakes
    for problem, write in () if mistakes else web_servers.problems(shlex.split(line)):
        yield wrong("celery_web_command", line, problem, write)
    url = host["celery_app_check_url"]
    if url and not line:
        problem = "celery_web_command is empty, so that no page would answer."
        yield wrong("celery_app_check_url", url, problem, "''")


def commands(host: Host) -> Iterator[Mistake]:
    """The commands of a deploy."""
    for variable in ("celery_app_migrate_command", "celery_app_seed_command", "celery_app_build_commands"):
        for line in [host[variable]] if isinstance(host[variable], str) else host[variable] or []:
            yield from command(variable, str(line), may_be_list=True)
    yield from command("celery_app_check_command", host.text("celery_app_check_command"))


def command(variable: str, line: str, may_be_list: bool = False) -> Iterator[Mistake]:
    """What is wrong with a command: it is words for a program, not a line for a shell."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield wrong(variable, line, f"{error}.", "the same with every quote closed")
        return
    if (longest := max(map(bytes_of, words), default=0)) > ARGUMENT:
        yield wrong(variable, line, f"it has a word of {longest} bytes; {TOO_LONG}.", "a script inside your source")
    if "\n" in line.strip() or SHELL & set(words) or any(word.endswith(";") for word in words):
        parts = [part.strip() for part in re.split(r"\n|&&|[|;&<>]", line.strip())]
        # A command runs in the release's directory already.
        parts = [part for part in parts if part and not part.startswith("cd ")]
        first = parts[0] if parts else ""
        problem = "no shell runs it, so that it can't hold several commands, pipes or redirections."
        if may_be_list and parts[1:] and not re.search(r"[|<>]|(?<!&)&(?!&)", line):
            yield wrong(variable, line, problem, f"{json.dumps(parts)}, each a command")
            return
        yield wrong(variable, line, problem, f"{first} (or a script inside your source)")
