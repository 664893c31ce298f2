"""How full the file systems are on which an application works; of a full one, which it is and what may be removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, RABBITMQ_DATA, REDIS_DATA, Layout

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
SAID = ("No space left on device", "Disk quota exceeded")
"""The same, from the output of a command."""

PLACES = (CONF_D, Path("/var/tmp"), Path("/tmp"), Path("/run"))
"""Where else the kit and what it calls write."""

SERVICES = ("/", "/srv", "/etc", "/var/lib", "/var/log", *map(str, (RABBITMQ_DATA, REDIS_DATA)), "/run", "/tmp")
"""Where application, broker and store write, whatever the application's name."""

FULL_SHARE = 95.0
"""Percent from which on a file system is as good as full."""

NEARLY = 1024 * 1024
"""A file system with fewer bytes left is full: what did not fit may have been larger than what is left."""


@dataclass(frozen=True)
class Disk:
    """How full a file system is, in percent, by where it is mounted."""

    path: str
    space: float
    inodes: float
    readonly: bool = False

    @classmethod
    def of(cls, mount: Path) -> Disk:
        """Look at a file system; for its space as `df` does, without what is kept for root."""
        seen = os.statvfs(mount)
        used = seen.f_blocks - seen.f_bfree
        inodes = 100 * (seen.f_files - seen.f_favail) / seen.f_files if seen.f_files else 0.0
        space = 100 * used / max(1, used + seen.f_bavail)
        return cls(str(mount), space, inodes, bool(seen.f_flag & os.ST_RDONLY))


def disks(app: str) -> list[Disk]:
    """Return the file systems on which an application, its broker and its store write, each once."""
    layout = Layout(app)
    places = [*map(Path, SERVICES), layout.base, layout.state, layout.log]
    return [Disk.of(mount) for mount in dict.fromkeys(map(mount_of, places))]


def is_full(error: OSError | str) -> bool:
    """Whether an error, or the output of a command, is about a full disk."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(words in error for words in SAID)


def is_readonly(error: OSError | str) -> bool:
    """Whether an error, or the output of a command, is about a file system that is read-only."""
    return error.errno == errno.EROFS if isinstance(error, OSError) else "Read-only file system" in error


def faults(error: OSError | str, places: Iterable[Path] = ()) -> list[str]:
    """Return which file system is full or read-only, where the error is about one, and what to type.

    Where it names no path, those of `places` are looked at, and those that the kit writes to on every host.
    """
    named = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else ""
    mounts = dict.fromkeys(map(mount_of, [Path(named)] if named else [*places, *PLACES, *map(Path, SERVICES)]))
    if is_full(error):
        full = [describe(mount) for mount in mounts if named or left(mount) < NEARLY]
        return full or ["Look which disk it is: df -h; df -i."]
    if is_readonly(error):
        return [
            f"The file system of {mount} is read-only. Look why: dmesg | tail -n 50; then: mount -o remount,rw {mount}"
            for mount in mounts
            if Disk.of(mount).readonly
        ]
    return []


def explain(error: OSError | str, app: str | None) -> str:
    """The error; with a full disk also which one, and what to type."""
    said = str(error).strip()
    if not app:
        return said
    layout = Layout(app)
    which = "\n".join([said, *faults(error, [layout.base, layout.log, layout.etc])])
    if not is_full(error):
        return which
    return (
        f"{which}\n"
        "A rollback needs no space. Make room, then run this again:\n"
        f"  old releases: du -sh {layout.releases}/* {layout.virtualenvs}/*, then rm -r those that are neither "
        f"$(readlink {layout.current}) nor named in {CONF_D}/{app}-* or {layout.deployments}/*.json\n"
        f"  old logs: rm -f {layout.log}/*.log.[0-9]*; journalctl --vacuum-size=100M; apt-get clean"
    )


def mount_of(path: Path) -> Path:
    """Where the file system is mounted that a path is on, or would be."""
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def left(mount: Path) -> int:
    """The bytes left on a file system; none if no file can be made there."""
    seen = os.statvfs(mount)
    return 0 if seen.f_files and not seen.f_favail else seen.f_bavail * seen.f_frsize


def describe(mount: Path) -> str:
    """A full file system for the operator."""
    seen = os.statvfs(mount)
    if seen.f_files and not seen.f_favail:
        look = f"du -x --inodes -d2 {mount} | sort -n | tail"
        return f"The file system of {mount} has no inode left of {seen.f_files}. Look: {look}"
    share, whole = Disk.of(mount).space, seen.f_blocks * seen.f_frsize / 1e6
    return (
        f"The file system of {mount} is full: {share:.0f} % of {whole:,.0f} MB, {left(mount) / 1e6:.1f} MB left. Look: "
        f"du -xh -d2 {mount} | sort -h | tail"
    )
