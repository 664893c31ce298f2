"""The programs of an application, made of its variables: command lines, readiness checks, time limits.

Pure functions: variables and the build's report in, programs out. The action plugin celery_programs renders them.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, TARGET, Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    own_time_limits,
    schedulers,
    worker_programs_of_hosts,
)

Variables = Mapping[str, Any]
"""A host's variables, evaluated."""
Build = Mapping[str, Any]
"""What the module `release` answers: python, inspect (queues, routes), listener; empty for no release yet."""

UNKNOWN_QUEUES = "(known once the release is built)"
"""Shown by check mode in place of the application's own queues."""
PHASES = {
    "workers": ("worker",),
    "scheduler": ("scheduler",),
    "web": ("web",),
    "producers": ("web", "scheduler"),
    "all": ("worker", "web", "scheduler"),
}
"""The groups whose programs a phase hands over. The last two are of a rollback."""
BETWEEN = {"after_workers", "before_scheduler", "after_scheduler", "before_web", "after_web"}
"""Hooks that come between the groups of a host, or after the last one."""
LEFT = "left"
"""The phase that is about the programs of the groups which a host is not in (any more)."""


@dataclass(frozen=True)
class Program:
    """One program under the name of one generation; times are in seconds."""

    app: str
    program: str
    """What stays the same from one generation to the next, such as `shop-worker-default`."""
    name: str
    command: list[str]
    ready: list[str] = field(default_factory=list)
    ready_timeout: int = layout.START_TIMEOUT
    min_uptime: int = 0
    lasting_children: bool = False
    strategy: str = "overlap"
    restore_strategy: str | None = None
    stop_timeout: int = layout.HELPER_STOP_TIMEOUT
    replaces: tuple[str, ...] = ()
    """Programs of other names that it takes over from."""
    syslog: bool = False
    """Whether syslog, or the journal, gets its output as well."""
    beside: str = ""
    """What the conf of an older generation holds that this one may start beside; any other is stopped first."""

    @property
    def startsecs(self) -> int:
        """When supervisord calls it RUNNING: later where its ready command tells before."""
        return 10 if self.ready else 2

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return Layout(self.app).log_file(self.name)


@dataclass(frozen=True)
class Programs:
    """Builds the programs of an application on one host."""

    variables: Variables
    deployment: Deployment
    build: Build

    def of(self, phase: str) -> dict[str, Callable[[str], Program]]:
        """Return the phase's programs: by what stays the same, what builds one under the name of a generation."""
        here = groups_of(self.variables, phase)
        found: dict[str, Callable[[str], Program]] = {}
        if "worker" in here:
            for entry in self.variables["celery_worker_programs"]:
                found[self.paths.worker(entry["name"])] = partial(self.worker, entry)
        if "web" in here and self.variables["celery_web_command"]:
            found |= {self.paths.web_listener: self.listener, self.paths.web: self.web}
        if "scheduler" in here and boolean(self.variables["celery_scheduler_enabled"]):
            found[self.paths.scheduler] = self.scheduler
        if watches(self.variables, here):
            found[self.paths.watchdog] = self.watchdog
        return {program: partial(self._logged, make) for program, make in found.items()}

    def _logged(self, make: Callable[[str], Program], name: str) -> Program:
        return replace(make(name), syslog=boolean(self.variables["celery_app_log_syslog"]))

    @property
    def paths(self) -> Layout:
        """The application's paths and names."""
        return Layout(self.deployment.app)

    @property
    def task_time_limit(self) -> int:
        """The seconds that a task may take where its program has no limit of its own."""
        return int(self.variables["celery_app_task_time_limit"])

    def worker(self, entry: Mapping[str, Any], name: str) -> Program:
        """Return a generation of one entry of celery_worker_programs."""
        deployment, variables = self.deployment, self.variables
        node, pidfile = f"{name}@{variables['inventory_hostname']}", self.paths.pidfile(name)
        queues = ",".join(self._queues(entry))
        pool = str(entry.get("pool", "prefork"))
        limit = int(entry.get("time_limit", self.task_time_limit))
        # As long as its tasks may take, and not those of another program, it may drain.
        drain_timeout = layout.stop_timeout(limit)
        ready_timeout = int(variables["celery_worker_ready_timeout"])
        strategy = entry.get("handover", variables["celery_worker_handover"])
        slots = (
            ["--autoscale", str(entry["autoscale"])]
            if "autoscale" in entry
            else ["-c", str(entry.get("concurrency", layout.CONCURRENCY))]
        )
        celery = [
            *(str(deployment.release.venv / "bin/celery"), "-A", variables["celery_app_module"], "worker"),
            *("-l", "INFO", "-n", node, "-Q", queues, *slots, "-P", pool, "-I", "celery_ops.tasks"),
            *self._limits(pool, limit),
            *("--without-gossip", "--without-mingle", "--pidfile", str(pidfile)),
            *(["--task-events"] if boolean(variables.get("celery_worker_events", False)) else []),
            *map(str, entry.get("options", [])),
        ]
        ready = [
            *("celery-ops-ready", "-A", variables["celery_app_module"], "--node", node, "--queues", queues),
            *("--canary-file", str(self.paths.canary(name)), "--timeout", str(ready_timeout)),
        ]
        return Program(
            app=self.deployment.app,
            program=self.paths.worker(entry["name"]),
            name=name,
            command=deployment.guarded(name, pidfile, celery, drain_timeout, *memory_options(entry, strategy)),
            ready=deployment.as_app(ready),
            ready_timeout=ready_timeout,
            min_uptime=int(variables["celery_worker_min_uptime"]),
            strategy=strategy,
            stop_timeout=drain_timeout,
        )

    def _queues(self, entry: Mapping[str, Any]) -> list[str]:
        programs = self.variables["celery_worker_programs"]
        named = entry.get("queues") or own_queues(self.build.get("inspect") or {}, programs)
        return [str(queue) for queue in named] or [UNKNOWN_QUEUES]

    def _limits(self, pool: str, limit: int) -> list[str]:
        if pool == "prefork":
            return ["--soft-time-limit", str(layout.soft_limit(limit)), "--time-limit", str(limit)]
        # Elsewhere celery_ops.settings writes the limit into each message, unless programs have limits of their own.
        is_own = pool == "gevent" and own_time_limits(self.variables["celery_worker_programs"])
        return ["--time-limit", str(limit)] if is_own else []

    def scheduler(self, name: str) -> Program:
        """Return a generation of the scheduler.

        One that is alone has the same pidfile in every generation: never two. Of several, the lease lets one lead.
        """
        deployment, variables = self.deployment, self.variables
        leased = len(schedulers(variables)) > 1
        pidfile = self.paths.pidfile(name) if leased else self.paths.run / f"scheduler{layout.PID}"
        program = deployment.tool(layout.LEASED) if leased else str(deployment.release.venv / "bin/celery")
        celery = [
            *(program, "-A", variables["celery_app_module"], "beat"),
            *("-l", "INFO", "--pidfile", str(pidfile)),
            *("--schedule", str(self.paths.beat_schedule(self.build.get("python", "")))),
            *map(str, variables["celery_scheduler_options"]),
        ]
        return Program(
            app=self.deployment.app,
            program=self.paths.scheduler,
            name=name,
            command=deployment.guarded(name, pidfile, celery, layout.stop_timeout(self.task_time_limit)),
            # Written as soon as it stands in line for the lease.
            ready=["test", "-s", str(self.paths.heartbeat(name))] if leased else [],
            strategy="overlap" if leased else "replace",
            stop_timeout=layout.SCHEDULER_STOP_TIMEOUT,
            beside=layout.LEASED if leased else "",
        )

    def watchdog(self, name: str) -> Program:
        """Return a generation of the watchdog. Its pidfile is the same in every generation: never two."""
        deployment, drain_timeout = self.deployment, layout.stop_timeout(self.task_time_limit)
        command = [
            *(deployment.tool("celery-ops-watchdog"), "-A", self.variables["celery_app_module"]),
            *("--drain-timeout", str(drain_timeout)),
        ]
        return Program(
            app=self.deployment.app,
            program=self.paths.watchdog,
            name=name,
            command=deployment.guarded(name, self.paths.pidfile("watchdog"), command, drain_timeout),
            ready=["test", "-s", str(self.paths.heartbeat(name))],
            strategy="replace",
            replaces=(self.paths.watchdog_before,),
        )

    def web(self, name: str) -> Program:
        """Return a generation of the web server, which takes the listening socket from the listener."""
        variables, pidfile = self.variables, self.paths.pidfile(name)
        words = [word.replace("{pidfile}", str(pidfile)) for word in shlex.split(variables["celery_web_command"])]
        stop_timeout = int(variables["celery_web_stop_timeout"])
        listen_from = ("--listen-from", str(self.paths.socket(variables["celery_web_bind"])))
        return Program(
            app=self.deployment.app,
            program=self.paths.web,
            name=name,
            command=self.deployment.guarded(name, pidfile, words, stop_timeout, *listen_from),
            min_uptime=int(variables["celery_web_min_uptime"]),
            lasting_children=True,
            strategy=variables["celery_web_handover"],
            restore_strategy="replace",  # a rollback stops producers before anything starts
            stop_timeout=stop_timeout,
        )

    def listener(self, name: str) -> Program:
        """Return a generation of the program that holds the web's listening socket, so that no deploy closes it.

        A new generation takes the socket over from the old one, where its code can.
        """
        bind, code = self.variables["celery_web_bind"], str(self.build.get("listener", ""))
        takes_over = Path(code).is_relative_to(self.paths.listeners)
        return Program(
            app=self.deployment.app,
            program=self.paths.web_listener,
            name=name,
            command=[
                *(layout.PYTHON, code, "--bind", bind),
                *("--socket", str(self.paths.socket(bind)), "--user", self.deployment.app),
                *(("--pause", str(self.paths.pause)) if takes_over else ()),
            ],
            strategy="overlap" if takes_over else "replace",
        )


def memory_options(entry: Mapping[str, Any], strategy: str) -> list[str]:
    """Return what the guard is told of a worker's memory; nothing without a limit."""
    if "max_memory" not in entry:
        return []
    alone = ["--no-stand-in"] if strategy == "replace" else []
    return ["--max-memory", str(layout.size(str(entry["max_memory"]))), *alone]


def groups_of(variables: Variables, phase: str, everywhere: bool = False) -> list[str]:
    """Return the groups of a phase that the host is in; all of the phase with `everywhere`."""
    return [group for group in PHASES[phase] if everywhere or group in variables["group_names"]]


def left_groups(variables: Variables) -> list[str]:
    """Return the groups that the host is not in, and whose programs it may have run.

    Without the scheduler's in a rollback in which a host that is new to the group schedules by the inventory.
    """
    new = (variables.get(TARGET) or {}).get("without_record", [])
    kept = {"scheduler"} if set(new) & set(variables["groups"].get("scheduler") or []) else set()
    return [group for group in PHASES["all"] if group not in {*variables["group_names"], *kept}]


def left(variables: Variables) -> list[str]:
    """Return the groups that the host is not in, and whose programs it still has, as this deploy has seen."""
    return [group for group in left_groups(variables) if group in (variables.get(BUILD) or {}).get("groups", [])]


def deploy_phase(phase: str, variables: Variables) -> str:
    """Return a deploy's phase: a host that is alone does all in one call, and observes all its programs at once."""
    if phase == "workers":
        return "all" if goes_at_once(variables) else phase
    return "" if phase in ("scheduler", "web") and goes_at_once(variables) else phase


def goes_at_once(variables: Variables) -> bool:
    """Whether all groups of this host are handed over in one call: nothing is to happen between two phases."""
    build, hooks = variables.get(BUILD) or {}, variables["celery_app_hooks"]
    return (
        bool(build.get("alone"))
        and "worker" in variables["group_names"]
        and not {"scheduler", "web"}.isdisjoint(variables["group_names"])
        and variables["celery_app_on_failure"] == "rollback"  # of `keep`, what was handed over before stays
        and variables["celery_app_deploy"] == "handover"
        and not BETWEEN & set(hooks)
        and not left(variables)
    )


def watches(variables: Variables, here: Iterable[str]) -> bool:
    """Whether the watchdog belongs to what these groups of the host run: the workers', without them the scheduler's."""
    return "worker" in here or ("scheduler" in here and "worker" not in variables["group_names"])


def prefixes_of(variables: Variables, phase: str, everywhere: bool = False) -> list[str]:
    """Return what the names of the phase's programs on this host begin with."""
    app = variables["celery_app_name"]
    here = left_groups(variables) if phase == LEFT else groups_of(variables, phase, everywhere)
    found = [f"{app}-{name}-" for group in here for name in layout.PROGRAMS_OF[group]]
    watchdogs = [f"{Layout(app).watchdog}-", f"{Layout(app).watchdog_before}-"]
    if phase == LEFT:
        return found + (watchdogs if {"worker", "scheduler"}.isdisjoint(variables["group_names"]) else [])
    return found + (watchdogs if watches(variables, here) else [])


def to_restart(variables: Variables, phase: str) -> list[str]:
    """Return the phase's programs on this host that celery_app_restart names, all of them where it is empty.

    Raises OperatorError for a name that no host of the run has.
    """
    wanted = names_in(variables["celery_app_restart"])
    refuse_unknown_programs("celery_app_restart", wanted, variables)
    here = Programs(variables, Deployment.current(variables["celery_app_name"]), {}).of(phase)
    app = variables["celery_app_name"]
    return [program for program in here if not wanted or short_name(app, program) in wanted]


def names_in(text: Any) -> list[str]:
    """Return the names in a list, or in a text with commas between."""
    names = text if isinstance(text, list) else str(text or "").split(",")
    return [name for each in names if (name := str(each).strip())]


def short_name(app: str, program: str) -> str:
    """Return how an operator calls a program: `default` for petct-worker-default, `scheduler` for petct-scheduler."""
    return program.removeprefix(f"{app}-").removeprefix("worker-")


def refuse_unknown_programs(variable: str, names: Iterable[str], variables: Variables) -> None:
    """Raise OperatorError where a variable names a program that no host of the inventory has."""
    entries = [*variables["celery_worker_programs"], *chain(*worker_programs_of_hosts(variables))]
    known = sorted({str(entry["name"]) for entry in entries} | {"scheduler", "web", "web-listener", "watchdog"})
    for name in names:
        if name not in known:
            raise OperatorError(
                f"{variable}: there is no program {name}. Nothing was changed. Available: {', '.join(known)} (names of "
                "celery_worker_programs, and the kit's programs)"
            )


def own_queues(report: Mapping[str, Any], programs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the queues of a program that names none: the application's own, as inspected, that no other names.

    Where the others name them all, all of them; none where the release is not built yet.
    """
    queues = list(dict.fromkeys([*report.get("queues", []), *report.get("routes", [])]))
    named = {str(queue) for program in programs for queue in program.get("queues") or []}
    return [queue for queue in queues if queue not in named] or queues


def lacks_queues(variables: Variables, build: Build, phase: str) -> list[str]:
    """Return those of the phase's entries of celery_worker_programs whose queues can't be told."""
    programs = variables["celery_worker_programs"]
    if "worker" not in groups_of(variables, phase) or own_queues(build.get("inspect") or {}, programs):
        return []
    return [str(entry["name"]) for entry in programs if not entry.get("queues")]


def scheduler_class(options: Iterable[Any]) -> str:
    """Return the scheduler that options of beat name; "" for none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-S", "--scheduler", default="")
    return parser.parse_known_args(list(map(str, options)))[0].scheduler


def supervisor_command(arguments: Iterable[Any]) -> str:
    """Return a command line that Supervisor's parser takes apart into exactly these arguments.

    Supervisor expands `%`, takes ` ;` and ` #` for comments even inside quotes, and then splits like a shell.
    """
    words = []
    for argument in map(str, arguments):
        if "\n" in argument or "\r" in argument:
            raise OperatorError(f"A program's command line can't hold a newline: {argument!r}")
        word = shlex.quote(argument).replace("%", "%%")
        words.append(re.sub(r"(\s)([;#])", r"\1''\2", word))
    return " ".join(words)


def options_of(conf: str) -> dict[str, str]:
    """Return the options of a program's conf as Supervisor's parser reads them, comments left out."""
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    parser.read_string(conf)
    [section] = parser.sections()
    return dict(parser[section])


def generation_of(conf: str, ready: list[str], python: str = "") -> str:
    """Return the id of a generation: a hash of the options and the ready command that its program has.

    `python` is the version that its virtualenv was made with: the same command under another one is another generation.
    """
    settings = json.dumps([options_of(conf), ready, *([python] if python else [])], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:8]
