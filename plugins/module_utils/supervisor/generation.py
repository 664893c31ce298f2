"""A generation of a program, as the module's manifest and the deployments' records describe it."""

from __future__ import annotations

import configparser
import hashlib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import GENERATION, START_TIMEOUT, program_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.ini import parsed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

AGAIN = 10
"""Generations of one program, alike but for their name, that may drain at a time."""

OLD_NAMES = {"family": "program", "settle": "min_uptime"}
"""Keys as versions of the kit before 0.2 wrote them into the records."""

OLD_STRATEGIES = {"one_by_one": "rolling"}


@dataclass(frozen=True)
class Generation:
    """One generation of a program, with the module's options. Times are in seconds."""

    program: str
    name: str
    conf: str
    ready: list[str] = field(default_factory=list)
    ready_timeout: int = START_TIMEOUT
    min_uptime: int = 0
    lasting_children: bool = False
    strategy: str = "overlap"
    restore_strategy: str | None = None
    stop_timeout: int | None = None
    log: str | None = None
    replaces: list[str] = field(default_factory=list)
    beside: str = ""
    of: str = ""
    """The generation that this one equals but for its name, see `again`."""

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Generation:
        """Return the generation that a mapping describes; keys that are none of its options do not count."""
        known = {OLD_NAMES.get(key, key): value for key, value in options.items()}
        for key in ("strategy", "restore_strategy"):
            known[key] = OLD_STRATEGIES.get(known.get(key, ""), known.get(key))
        names = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in known.items() if key in names and value is not None})

    @classmethod
    def restored(cls, recorded: Mapping[str, Any]) -> Generation:
        """Return a generation of a deployment's record, as a rollback brings it back: it was healthy before."""
        generation = cls.of_options(recorded)
        return replace(generation, min_uptime=0, strategy=generation.restore_strategy or generation.strategy)

    def again(self, number: int) -> Generation:
        """Return the same under another name, which can run while this one still drains; 0 is itself."""
        if not number or not GENERATION.search(self.name):
            return self
        name = f"{self.program}-{hashlib.sha256(f'{self.name} {number}'.encode()).hexdigest()[:8]}"
        return replace(self.named(name), of=self.of or self.name)

    def named(self, name: str) -> Generation:
        """Return the same under another name."""
        return replace(
            self,
            name=name,
            conf=self.conf.replace(self.name, name),
            ready=[word.replace(self.name, name) for word in self.ready],
            log=self.log and self.log.replace(self.name, name),
        )

    @property
    def names(self) -> list[Generation]:
        """The same under each name that it may have."""
        return [self.original.again(number) for number in range(AGAIN)]

    @property
    def original(self) -> Generation:
        """The generation that this one equals but for its name, or itself."""
        return replace(self.named(self.of), of="") if self.of else self

    @property
    def predecessors(self) -> set[str]:
        """The programs whose generations this one takes over from: its own, and those that it replaces."""
        return {self.program, *self.replaces}

    @property
    def executable(self) -> str:
        """The file that supervisord executes."""
        command = parsed(self.conf).get(f"program:{self.name}", "command", fallback="").replace("%%", "%")
        return next(iter(shlex.split(command)), "")


def stopwaitsecs_of(conf: str) -> int:
    """Return the seconds that the text of a program's file gives it to stop; 0 where it says none."""
    found = parsed(conf)
    return next((found.getint(section, "stopwaitsecs", fallback=0) for section in found.sections()), 0)


def mark_of(prefix: str) -> str:
    """Return the line that makes a conf file ours.

    It holds the whole prefix, so that `pet-` does not own what is `pet-x-`'s.
    """
    return f"# owner: celery-ops {prefix}"


def prefix_of(name: str, prefixes: Iterable[str]) -> str | None:
    """Return the prefix that owns a program of this name: the longest, if any."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def is_of(app: str, name: str) -> bool:
    """Return whether a program of this name is the application's: somebody else's may begin with its name, too."""
    return name.startswith(f"{app}-") and bool(GENERATION.search(name)) and bool(NAME.fullmatch(name))


def refuse_invalid(prefixes: Collection[str], generations: Iterable[Generation]) -> None:
    """Raise OperatorError for a generation that we could not own, name or tell apart later."""
    seen: set[str] = set()
    for one in generations:
        name = one.name
        if not NAME.fullmatch(name):
            raise OperatorError(f"programs: the name {name!r} may hold letters, digits, '.', '_' and '-' only.")
        prefix = prefix_of(name, prefixes)
        if prefix is None:
            raise OperatorError(
                f"programs: {name} does not begin with a prefix of program_prefixes ({', '.join(prefixes)}): "
                f"it could never be pruned."
            )
        if one.program not in (name, program_of(name)):
            raise OperatorError(
                f"programs: {name} must be its program {one.program!r}, or that and '-' and 8 hex digits."
            )
        if {name, one.program} & seen:
            raise OperatorError(f"programs: {name} or its program {one.program} is listed twice.")
        seen |= {name, one.program}
        if mark_of(prefix) not in one.conf.splitlines():
            raise OperatorError(f"programs: the conf of {name} lacks the line {mark_of(prefix)!r} that makes it ours.")
        try:
            sections = parsed(one.conf).sections()
        except configparser.Error as error:
            raise OperatorError(f"programs: the conf of {name} is not a valid configuration file: {error}") from None
        if sections != [f"program:{name}"]:
            raise OperatorError(
                f"programs: the conf of {name} must hold the section [program:{name}] and no other, not {sections}."
            )
