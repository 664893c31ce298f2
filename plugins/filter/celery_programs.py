"""The programs of an application: command lines, readiness checks, environment file."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Any
from urllib.parse import quote

from ansible.errors import AnsibleFilterError

# Stands for the generation until its hash is known; see plugins/action/supervisor_programs.py.
GENERATION = "@GENERATION@"
# Stands for the application's own queues until its release is built; see plugins/modules/supervisor_programs.py.
QUEUES = "@QUEUES@"
# Not every way to become root (`su`) comes with sbin in the PATH.
RUNUSER = "/usr/sbin/runuser"
POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")
# What the module supervisor_programs calls a way to take over otherwise.
STRATEGIES = {"rolling": "one_by_one"}
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def url_part(text: str) -> str:
    """`text` so that it can stand as user or password in a URL."""
    return quote(str(text), safe="")


def env_file(variables: dict[str, Any]) -> str:
    """An environment file's text: sorted KEY=value lines, quoted so that sh reads them as well.

    Raises AnsibleFilterError for a name no shell takes and for a value with a newline.
    """
    lines = []
    for name, value in sorted(variables.items()):
        if not VARIABLE.match(str(name)):
            raise AnsibleFilterError(
                f"celery_app_environment/celery_app_secrets: '{name}' is no name for an environment variable; "
                "use letters, digits and _, not starting with a digit."
            )
        text = str(value)
        if "\n" in text or "\r" in text or "\0" in text:
            raise AnsibleFilterError(
                f"celery_app_environment/celery_app_secrets: the value of {name} holds a newline. "
                "An environment file has one line a variable; encode the value (base64, JSON) instead."
            )
        lines.append(f"{name}={shlex.quote(text)}\n")
    return "".join(lines)


def supervisor_command(arguments: list[str]) -> str:
    """A command line that Supervisor's parser takes apart into exactly these arguments.

    Supervisor expands `%`, takes ` ;` and ` #` for comments even inside quotes, and then splits like a shell.
    """
    words = []
    for argument in map(str, arguments):
        if "\n" in argument or "\r" in argument:
            raise AnsibleFilterError(f"A program's command line can't hold a newline: {argument!r}")
        word = shlex.quote(argument).replace("%", "%%")
        words.append(re.sub(r"(\s)([;#])", r"\1''\2", word))
    return " ".join(words)


def as_app(command: str, context: dict[str, Any]) -> list[str]:
    """The words that run `command` in the release as the application's user, with its environment; none for none."""
    words = shlex.split(command)
    if not words:
        return []
    if words[0].startswith("celery-ops-"):
        # By its path: a release of an older version of the kit has no PATH to find it on.
        words[0] = f"{context['release']}/venv/bin/{words[0]}"
    return [RUNUSER, "-u", context["app"], "--", *with_environment(words, context)]


def as_app_each(commands: str | list[str], context: dict[str, Any]) -> list[list[str]]:
    """The words of each of several commands, or of one; see `as_app`."""
    commands = [commands] if isinstance(commands, str) else commands
    return [words for command in commands if (words := as_app(command, context))]


def with_environment(words: list[str], context: dict[str, Any]) -> list[str]:
    """`words` run by celery-ops-env, which loads the environment file."""
    release = context["release"]
    return [
        f"{release}/venv/bin/celery-ops-env",
        context["environment_file"],
        "--chdir",
        f"{release}/app",
        "--",
        *words,
    ]


def guarded(name: str, pidfile: str, words: list[str], context: dict[str, Any], *options: str) -> list[str]:
    """`words` started by the guard."""
    release = context["release"]
    return [
        f"{release}/venv/bin/celery-ops-guard",
        *("--app", context["app"], "--program", name, "--pidfile", pidfile, "--user", context["app"]),
        *("--env-file", context["environment_file"], "--chdir", f"{release}/app"),
        *("--drain-timeout", str(context["stop_timeout"]), *options, "--", *words),
    ]  # fmt: skip


def worker_program(definition: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The Supervisor program of one entry of celery_worker_programs."""
    app, family = context["app"], f"{context['app']}-worker-{definition['name']}"
    name = f"{family}-{GENERATION}"
    queues = ",".join(map(str, definition.get("queues") or context.get("own_queues") or [QUEUES]))
    pool = definition.get("pool", "prefork")
    if pool not in POOLS:
        raise AnsibleFilterError(
            f"celery_worker_programs: pool of '{definition['name']}' is {pool}; it may be {', '.join(POOLS)}."
        )
    pidfile, node = f"/run/{app}/{name}.pid", f"{name}@{context['host']}"
    # As long as its tasks may take, and not those of another program, it may drain.
    limit = int(definition.get("time_limit", context["time_limit"]))
    drains = int(context["stop_timeout"]) - int(context["time_limit"]) + limit
    limits = soft_and_hard(limit) if pool == "prefork" else []
    if pool == "gevent" and context.get("own_time_limits"):  # else celery_ops.settings limit it, in each message
        limits = ["--time-limit", str(limit)]
    slots = ["-c", str(definition.get("concurrency", 2))]
    if "autoscale" in definition:
        slots = ["--autoscale", str(definition["autoscale"])]
    celery = [
        f"{context['release']}/venv/bin/celery", "-A", context["module"], "worker", "-l", "INFO", "-n", node,
        "-Q", queues, *slots, "-P", pool, "-I", "celery_ops.tasks", *limits,
        "--without-gossip", "--without-mingle", "--pidfile", pidfile, *map(str, definition.get("options", [])),
    ]  # fmt: skip
    ready = [
        f"{context['release']}/venv/bin/celery-ops-ready", "-A", context["module"], "--node", node, "--queues", queues,
        "--canary-file", f"/run/{app}/{name}.canary", "--timeout", str(context["ready_timeout"]),
    ]  # fmt: skip
    handover = definition.get("handover", context["handover"])
    return {
        "family": family,
        "command": guarded(name, pidfile, celery, {**context, "stop_timeout": drains}),
        "ready": [RUNUSER, "-u", app, "--", *with_environment(ready, context)],
        "ready_timeout": int(context["ready_timeout"]),
        "settle": int(context["settle"]),
        "strategy": STRATEGIES.get(handover, handover),
        "stop_timeout": drains,
    }


def tick_queue(programs: list[dict[str, Any]], default: str) -> str:
    """The queue for the scheduler's ticks; "" for the application's default queue, where a program consumes from it."""
    names = [str(queue) for program in programs for queue in program.get("queues") or [default]]
    return names[0] if names and default not in names else ""


def own_queues(report: dict[str, Any], programs: list[dict[str, Any]]) -> list[str]:
    """The queues of a program that names none: the application's own, as inspected, that no other program names.

    Where the others name them all, all of them; none where the release is not built yet.
    """
    queues = list(dict.fromkeys([*report.get("queues", []), *report.get("routes", [])]))
    named = {str(queue) for program in programs for queue in program.get("queues") or []}
    return [queue for queue in queues if queue not in named] or queues


def soft_and_hard(limit: int) -> list[str]:
    """The worker's two time limits: a task is told to end a little before it is ended."""
    return ["--soft-time-limit", str(limit - max(1, min(30, limit // 10))), "--time-limit", str(limit)]


def scheduler_program(options: list[str], context: dict[str, Any]) -> dict[str, Any]:
    """The scheduler's Supervisor program. Its pidfile is the same in every generation: never two."""
    app = context["app"]
    name = f"{app}-scheduler-{GENERATION}"
    pidfile = f"/run/{app}/scheduler.pid"
    celery = [
        f"{context['release']}/venv/bin/celery", "-A", context["module"], "beat", "-l", "INFO", "--pidfile", pidfile,
        "--schedule", f"/var/lib/{app}/beat-schedule-py{context['python_version']}", *map(str, options),
    ]  # fmt: skip
    return {
        "family": f"{app}-scheduler",
        "command": guarded(name, pidfile, celery, context),
        "ready": [],
        "strategy": "replace",
        "stop_timeout": 30,
    }


def scheduler_class(options: list[Any]) -> str:
    """The scheduler that options of beat name; "" for none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-S", "--scheduler", default="")
    return parser.parse_known_args(list(map(str, options)))[0].scheduler


def health_program(context: dict[str, Any]) -> dict[str, Any]:
    """The watch's Supervisor program. Its pidfile is the same in every generation: never two."""
    app = context["app"]
    name = f"{app}-health-{GENERATION}"
    watch = [
        *(f"{context['release']}/venv/bin/celery-ops-health", "-A", context["module"]),
        *("--drain-timeout", str(context["stop_timeout"])),
    ]
    return {
        "family": f"{app}-health",
        "command": guarded(name, f"/run/{app}/health.pid", watch, context),
        "ready": ["test", "-s", f"/run/{app}/{name}.heartbeat"],
        "strategy": "replace",
        "stop_timeout": 10,
    }


def listener_socket(bind: str, app: str) -> str:
    """Where the listener of this address hands its socket out: another address is another generation of both."""
    return f"/run/{app}/web-{re.sub(r'[^0-9A-Za-z.]', '_', bind)}.sock"


def web_program(command: str, context: dict[str, Any]) -> dict[str, Any]:
    """The web server's Supervisor program; it takes the listening socket from the listener."""
    app = context["app"]
    name = f"{app}-web-{GENERATION}"
    pidfile = f"/run/{app}/{name}.pid"
    words = [word.replace("{pidfile}", pidfile) for word in shlex.split(command)]
    return {
        "family": f"{app}-web",
        "command": guarded(name, pidfile, words, context, "--listen-from", listener_socket(context["bind"], app)),
        "ready": [],
        "settle": int(context["settle"]),
        "lasting_children": True,
        "strategy": context["handover"],
        "restore_strategy": "replace",  # a rollback stops producers before anything starts
        "stop_timeout": int(context["stop_timeout"]),
    }


def listener_program(bind: str, context: dict[str, Any]) -> dict[str, Any]:
    """The Supervisor program that holds the web's listening socket, so that no deploy closes it.

    A new generation takes the socket over from the old one; one of before 0.3 could not.
    """
    app = context["app"]
    return {
        "family": f"{app}-web-listener",
        "command": [
            *("/usr/bin/python3", context["listener"]),
            *("--bind", bind, "--socket", listener_socket(bind, app), "--user", app),
        ],
        "ready": [],
        "strategy": "overlap" if context["listener"].startswith(f"/srv/{app}/listeners/") else "replace",
        "stop_timeout": 10,
    }


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        names = (
            url_part, env_file, supervisor_command, as_app, as_app_each, own_queues, tick_queue,
            worker_program, scheduler_program, scheduler_class, web_program, listener_program, health_program,
        )  # fmt: skip
        return {function.__name__: function for function in names}
