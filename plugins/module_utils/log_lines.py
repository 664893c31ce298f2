"""Read the logs of an application's programs, merged by time. Standard library only: the runtime has this file, too.

An entry is a line that begins with a time, and the lines after it that don't, such as a traceback.
"""

from __future__ import annotations

import fnmatch
import heapq
import mmap
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

GENERATION_LOG = re.compile(r"(.+-[0-9a-f]{8})\.log(?:\.(\d+))?")
"""A generation's log, or one that supervisord has rotated: the higher the number, the older."""
TIME = re.compile(
    r"""(?:\W{0,3}|\{"(?:time|timestamp|@timestamp|asctime|ts)":\ ?"|\[?[A-Z]{4,8}\]?[:\s]+\[?)"""
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\ ?(Z\b|[+-]\d\d:?\d\d\b)?",
    re.VERBOSE,
)
"""The time that a line begins with: Celery's, the kit's, gunicorn's, and the first key of a JSON line."""
RELEASE = re.compile(r"/releases/([^/\s]+)/")
SPAN = re.compile(r"([0-9]+)\s*(s|m|min|h|d)?")
SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BLOCK = 65536
LONGEST = 1000
"""Lines of one entry; what goes on after them is the next one."""


@dataclass(frozen=True)
class Entry:
    """What a program wrote at one moment."""

    time: float
    """Unix time; of what has none itself, that of the entry before it."""
    program: str
    """The generation's name without that of the application and its id: worker-default."""
    text: str


@dataclass(frozen=True)
class Wanted:
    """Which entries are meant; empty parts mean all."""

    program: str = ""
    """A program's name, a pattern such as worker-*, or a generation's whole name."""
    task: str = ""
    release: str = ""
    since: float = 0.0


@dataclass
class Logs:
    """The logs of one application in `directory`."""

    app: str
    directory: Path
    releases: Mapping[str, str] = field(default_factory=dict)
    """The release of each generation, as far as it is known."""

    def generations(self) -> dict[str, list[Path]]:
        """Return the files of each generation, the newest first."""
        found: dict[str, list[tuple[int, Path]]] = {}
        for path in self.directory.glob(f"{self.app}-*.log*"):
            name = GENERATION_LOG.fullmatch(path.name)
            if name and not path.is_symlink():
                found.setdefault(name[1], []).append((int(name[2] or 0), path))
        return {name: [path for _, path in sorted(paths)] for name, paths in sorted(found.items())}

    def program(self, generation: str) -> str:
        """Return what a generation is called in the output, and in `Wanted.program`."""
        return generation[:-9].removeprefix(f"{self.app}-")

    def chosen(self, wanted: Wanted) -> dict[str, list[Path]]:
        """Return the generations that are wanted, and their files."""
        return {
            name: paths
            for name, paths in self.generations().items()
            if (not wanted.program or any(fnmatch.fnmatch(one, wanted.program) for one in self.names(name)))
            and (not wanted.release or self.releases.get(name) == wanted.release)
        }

    def names(self, generation: str) -> list[str]:
        """Return by which names a generation can be chosen."""
        return [self.program(generation), f"{self.app}-{self.program(generation)}", generation]

    def known(self) -> list[str]:
        """Return the names of all programs that have a log."""
        return sorted({self.program(name) for name in self.generations()})

    def last(self, count: int, wanted: Wanted) -> list[Entry]:
        """Return the last `count` entries of all programs, the oldest first."""
        newest_first = [self._entries(self.program(name), paths, wanted) for name, paths in self.chosen(wanted).items()]
        found: list[Entry] = []
        for entry in heapq.merge(*newest_first, key=lambda entry: -entry.time):
            if len(found) >= count:
                break
            found.append(entry)
        return found[::-1]

    def _entries(self, program: str, paths: Iterable[Path], wanted: Wanted) -> Iterator[Entry]:
        for path in paths:
            with suppress(FileNotFoundError):  # rotated in this moment
                if wanted.task and not holds(path, wanted.task):
                    continue
                for entry in entries_backwards(path, program):
                    if entry.time < wanted.since:
                        return
                    if wanted.task in entry.text:
                        yield entry


def entries_backwards(path: Path, program: str) -> Iterator[Entry]:
    """Yield the entries of a file, the newest first."""
    changed, lines = path.stat().st_mtime, []
    for line in lines_backwards(path):
        lines.append(line)
        at = time_of(line)
        if at is not None or len(lines) >= LONGEST:
            yield Entry(changed if at is None else at, program, "\n".join(lines[::-1]))
            changed, lines = changed if at is None else at, []
    if lines:
        yield Entry(changed, program, "\n".join(lines[::-1]))


def lines_backwards(path: Path) -> Iterator[str]:
    """Yield the lines of a file, the last one first, without reading more of it than is asked for."""
    with path.open("rb") as file:
        position, rest = file.seek(0, 2), b""
        while position:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            first, *whole = (file.read(size) + rest).split(b"\n")
            yield from (line.decode(errors="replace") for line in reversed(whole) if line)
            rest = first
        if rest:
            yield rest.decode(errors="replace")


def holds(path: Path, text: str) -> bool:
    """Whether a file has this text anywhere."""
    with path.open("rb") as file, suppress(ValueError), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        return whole.find(text.encode()) >= 0
    return False  # an empty one can't be mapped


def time_of(line: str) -> float | None:
    """Return the Unix time that a line begins with, or None. A time without a zone is in the host's."""
    found = TIME.match(line)
    if not found:
        return None
    day, clock, fraction, zone = found.groups()
    zone = "+00:00" if zone == "Z" else zone or ""
    try:
        return datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp() + float(f"0.{fraction or 0}")
    except (ValueError, OverflowError):
        return None


def seconds(text: str) -> float:
    """Return the seconds in a time such as ``90``, ``30m``, ``30 min`` or ``2h``. Raises ValueError with the fix."""
    found = SPAN.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a duration. Write a number and a unit: 30s, 10min (or 10m), 2h or 1d")
    return int(found[1]) * SECONDS[found[2]]


def releases_of(confs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the release of each generation, from names and texts of its Supervisor files."""
    found = ((name, RELEASE.search(text)) for name, text in confs)
    return {name: match[1] for name, match in found if match}


def conf_files(directory: Path, app: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of an application's Supervisor files."""
    for path in directory.glob(f"{app}-*.conf"):
        with suppress(OSError):
            yield path.stem, path.read_text(errors="replace")


def mistake(wanted: Mapping[str, Any], logs: Logs) -> str:
    """Return what is wrong with a choice, in the words of its option's name and value; nothing where all is right."""
    program, release = str(wanted.get("program") or ""), str(wanted.get("release") or "")
    if program and not logs.chosen(Wanted(program=program)):
        return f"program: {program!r} has no log here. Available: {', '.join(logs.known()) or 'none'}"
    known = sorted({logs.releases[name] for name in logs.generations() if name in logs.releases})
    if release and release not in known:
        return f"release: of {release!r} no program is known here. Available: {', '.join(known) or 'none'}"
    return ""


class Follower:
    """What programs write from now on; rotated files, and those of new generations, too."""

    def __init__(self, logs: Logs, wanted: Wanted) -> None:
        self.logs, self.wanted = logs, wanted
        self.files: dict[str, tuple[BinaryIO, bytes]] = {}
        self.belongs: dict[str, bool] = {}
        self._open(at_end=True)

    def _open(self, at_end: bool) -> None:
        for name, paths in self.logs.chosen(self.wanted).items():
            if name not in self.files:
                with suppress(OSError):
                    file = paths[0].open("rb")
                    file.seek(0, 2 if at_end else 0)
                    self.files[name] = file, b""

    def new(self) -> list[Entry]:
        """Return the entries that have come since, by time. A line without a time goes with the one before it."""
        self._open(at_end=False)
        found = [entry for name in [*self.files] for entry in self._read(name)]
        return sorted(found, key=lambda entry: entry.time)

    def _read(self, name: str) -> Iterator[Entry]:
        file, rest = self.files[name]
        *lines, rest = (rest + file.read()).split(b"\n")
        self.files[name] = file, rest
        path, moment, wanted = self.logs.directory / f"{name}.log", time.time(), self.wanted.task
        with suppress(OSError):
            if not lines and not os.path.samestat(path.stat(), os.fstat(file.fileno())):  # rotated, and read to its end
                file.close()
                del self.files[name]
        for line in (line.decode(errors="replace") for line in lines):
            at = time_of(line)
            if at is not None or name not in self.belongs:
                self.belongs[name] = wanted in line
                moment = at or moment
            if self.belongs[name] and line:
                yield Entry(moment, self.logs.program(name), line)
