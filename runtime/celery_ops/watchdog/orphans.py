"""Orphans: workers and schedulers of ours that no supervisord looks after, however they came to be."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery_ops import proc
from celery_ops.launch.process import ExitError, Identity, Process
from celery_ops.launch.termination import Termination

# Options of `celery` itself that take a value; the first word that is neither is the command.
_WITH_VALUE = {"-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir"}


class Orphan:
    """One of them. Seen twice, it is told to finish; what has not finished in time is killed."""

    def __init__(self, main: Process, drain_timeout: float, say: Callable[[str], None]) -> None:
        self.what, self.pid, self.say = main.identity.program, main.pid, say
        self.began = time.monotonic()
        self.looks = 0
        self.termination: Termination | None = Termination(drain_timeout, say)

    def step(self, main: Process, processes: list[Process]) -> None:
        """Do what is due: TERM to the main process, later KILL to it and its children."""
        self.looks += 1
        if self.looks == 1 or self.termination is None:
            return
        tree = [main, *(one for one in processes if one.parent == main.pid)]
        marked = [one if one.identity else replace(one, identity=main.identity) for one in tree]
        try:
            self.termination.step([main], marked)
        except ExitError as why:
            self.say(str(why))
            self.termination = None

    def about(self) -> dict[str, Any]:
        """Return what the watchdog's heartbeat says of it."""
        return {"pid": self.pid, "what": self.what, "seconds": round(time.monotonic() - self.began)}


def started_by_hand(processes: list[Process], app: str, module: str, home: Path) -> list[Process]:
    """Return the main processes of workers and schedulers of `module` that run a release's celery, and no guard.

    `home` is the directory with the releases and their virtualenvs.
    """
    found = {one.pid: one for one in processes if not one.identity and celery_command(one.pid, module, home)}
    return [
        replace(one, identity=_identity(one, app, f"{celery_command(one.pid, module, home)} started by hand"))
        for one in found.values()
        if one.parent not in found
    ]


def _identity(process: Process, app: str, what: str) -> Identity:
    return Identity(app, what, "", process.pid, process.start, process.parent, process.group)


def celery_command(pid: int, module: str, home: Path) -> str:
    """Return "worker" or "beat" if this process is that: of this application, by a release's celery; else ""."""
    try:
        words = proc.words(pid)
    except OSError:
        return ""
    if not words or not Path(words[0]).name.startswith("python"):
        return ""
    if len(words) > 2 and words[1].endswith("/bin/celery") and Path(words[1]).is_relative_to(home):
        words = words[2:]
    elif words[1:3] == ["-m", "celery"] and Path(words[0]).is_relative_to(home):
        words = words[3:]
    else:
        return ""
    options, command = _options(words)
    named = options.get("-A") or options.get("--app") or ""
    return command if command in ("worker", "beat") and _package(named) == _package(module) else ""


def _options(words: list[str]) -> tuple[dict[str, str], str]:
    """Return the options before the command, and the command."""
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        if word in _WITH_VALUE:
            options[word] = next(rest, "")
        elif sign:
            options[name] = value
        elif word.startswith("-A"):
            options["-A"] = word[2:]
        elif not word.startswith("-"):
            return options, word
    return options, ""


def _package(app: str) -> str:
    return app.partition(":")[0].partition(".")[0]
