"""The logs of an application's programs: a stable name for each, and nothing kept of generations long gone."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils import files
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import RUN_FILE, program_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import prefix_of

LOG = re.compile(r"(.+-[0-9a-f]{8})\.log(\.\d+)?")
"""A generation's log, or one that supervisord has rotated."""


def point(app: str, program: str, log: str) -> None:
    """Make `<program>.log` beside the log a link to it: a name for `tail -F` and log shippers.

    The directory must be root's: whoever may write there could lead the link anywhere.
    """
    path = Path(log)
    link = path.with_name(f"{program.removeprefix(f'{app}-')}.log")
    if link != path and (link.is_symlink() or not os.path.lexists(link)):  # a foreign file keeps its name
        files.point(link, path.name)


def prune_logs(directory: Path, prefixes: Iterable[str], present: Collection[str], keep: int) -> list[str]:
    """Delete the logs of generations that are gone, but for the newest `keep` of each program; return their names."""
    prefixes, gone = list(prefixes), {}
    for path in directory.glob("*.log*"):
        found = LOG.fullmatch(path.name)
        if found and _is_ours(found[1], prefixes, present) and stat.S_ISREG(path.lstat().st_mode):
            gone.setdefault(program_of(found[1]), {}).setdefault(found[1], []).append(path)
    deleted = []
    for names in gone.values():
        newest_first = sorted(names.values(), key=lambda paths: max(path.lstat().st_mtime for path in paths))[::-1]
        for path in (path for paths in newest_first[keep:] for path in paths):
            path.unlink(missing_ok=True)
            deleted.append(path.name)
    for link in directory.glob("*.log"):
        found = LOG.fullmatch(str(link.readlink())) if link.is_symlink() and not link.exists() else None
        if found and _is_ours(found[1], prefixes, present):
            link.unlink()
    return sorted(deleted)


def prune_state(directory: Path, prefixes: Iterable[str], present: Collection[str]) -> list[str]:
    """Delete the pidfiles, locks, heartbeats and canaries of generations that are gone; return their names.

    Those of a generation whose lock is held stay: it runs, without supervisord knowing. The directory belongs to the
    application: no link in it is followed, and only names in it are deleted.
    """
    prefixes, found_files, deleted = list(prefixes), {}, []
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        for file in os.listdir(handle):  # noqa: PTH208 pathlib takes no handle
            found = RUN_FILE.fullmatch(file)
            if found and _is_ours(found[1], prefixes, present):
                found_files.setdefault(found[1], []).append(file)
        for name, leftovers in found_files.items():
            with _lock(f"{name}.pid.lock", handle) as is_free:
                for file in leftovers if is_free else ():
                    with suppress(OSError):
                        os.unlink(file, dir_fd=handle)
                        deleted.append(file)
    finally:
        os.close(handle)
    return sorted(deleted)


def _is_ours(name: str, prefixes: list[str], present: Collection[str]) -> bool:
    """Whether a generation of this name is one of ours and gone."""
    return prefix_of(name, prefixes) is not None and name not in present


@contextmanager
def _lock(name: str, directory: int) -> Iterator[bool]:
    """Hold a lock file's flock; yield whether nobody else does. What is no regular file locks nothing."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        yield True
        return
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except BlockingIOError:
        is_free = False
    try:
        yield is_free
    finally:
        os.close(file)
