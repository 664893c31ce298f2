"""Large arrays by reference: between processes of one host they need not go through Redis.

Who sends a task and reads its result on the same host, as the same user, says so::

    loadArray.apply_async(arguments, headers=celery_ops.read_here())

A worker that has the same directory in memory then leaves the arrays in a file there, and only its name goes to the
result store. Any other worker, and one that finds too little room, stores the result as always. A file ends with the
result: its name begins with the second in which it expires, and the next writer, or the watchdog, removes it. What a
client has removed is kept for a minute as a spare: to write into memory that is there takes a quarter of the time.
"""

import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery_ops.launch.env import application_name
from celery_ops.layout import Layout

HEADER = "celery_ops_disk"
"""The header of a message that names the directory which the sender will read from."""
MOST = int(os.environ.get("CELERY_OPS_SHARED_MEMORY_BYTES") or 256 * 2**20)
"""Bytes of all files of an application together; 0 for none."""
LEAST = 64 * 1024
"""Bytes that are worth a file."""
NAME = re.compile(r"(\d+)-[0-9a-f]{16}")
SPARE = re.compile(rf"{NAME.pattern}\.spare")
"""Names of files and of spares; the number is the second in which each expires."""
SPARE_SECONDS = 60


class ResultElsewhere(LookupError):
    """A result was left in the memory of the host where the task was sent, and this process can't read it."""


def headers() -> dict[str, str]:
    """Return the headers by which a worker knows that the sender reads on this host; none where it can't."""
    found = identity(directory())
    return {HEADER: found} if found else {}


def directory() -> Path:
    """Return where this process's application leaves results."""
    return Layout(application_name("")).memory


def identity(place: Path) -> str:
    """Return what tells this directory from all others, or nothing where it is not this user's own; make it."""
    if not MOST or place == Layout("").memory:
        return ""
    try:
        place.mkdir(mode=0o750, exist_ok=True)
        found = place.lstat()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    # Anybody may make directories in /dev/shm.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return ""
    return f"{boot}:{found.st_dev}:{found.st_ino}"


def write(data: Any, seconds: float, place: Path | None = None) -> dict[str, Any] | None:
    """Leave `data` in a file that expires after `seconds`; return the reference to it.

    None where there is too little room, nothing that is worth a file, or what can't be sent.
    """
    from celery_ops import arrays

    try:
        message = arrays.message_of(data)
    except (TypeError, ValueError):
        return None
    if not message.arrays or message.size < LEAST:
        return None
    place = place or directory()
    made: Path | None = None
    try:
        made = _reserve(place, message.size, seconds)
        if made is None:
            return None
        with made.open("r+b", buffering=0) as file:
            for part in message.parts():
                _write_all(file, part)
    except OSError:  # no room, or the directory has gone
        if made is not None:
            made.unlink(missing_ok=True)
        return None
    return {"name": made.name, "size": message.size, "sum": checksum(message.parts())}


def read(reference: dict[str, Any], place: Path | None = None) -> Any:
    """Return the data of a reference; the arrays are this process's own. Raises ResultElsewhere."""
    from celery_ops import arrays

    name = str(reference["name"])
    path = (place or directory()) / name
    try:
        if not NAME.fullmatch(name):
            raise OSError("no such name")
        content = _content(path)
        if len(content) != reference["size"] or checksum([content]) != reference["sum"]:
            raise OSError("its content has changed")
        return arrays.loads(content)
    except OSError as error:
        raise ResultElsewhere(f"{path}: {error.strerror or error}") from error


def remove(reference: dict[str, Any]) -> None:
    """Remove the file of a reference, which the next writer may take; arrays that were read from it stay."""
    if NAME.fullmatch(name := str(reference["name"])):
        with contextlib.suppress(OSError):
            (directory() / name).rename(directory() / f"{_new_name(SPARE_SECONDS)}.spare")


def sweep(place: Path) -> int:
    """Remove what has expired; return the bytes of what is left."""
    left = 0
    with contextlib.suppress(OSError):
        for path in place.iterdir():
            if found := NAME.fullmatch(path.name) or SPARE.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    if int(found[1]) < time.time():
                        path.unlink()
                    else:
                        left += path.stat().st_size
    return left


def checksum(parts: Iterable[Any]) -> int:
    """Return the sum of the 64-bit words of what follows one another: what is torn or overwritten has another."""
    import numpy

    total, rest = 0, b""
    for part in parts:
        begun = -len(rest) % 8
        rest += bytes(part[:begun])
        if len(rest) == 8:
            total, rest = total + int.from_bytes(rest, "little"), b""
        words = numpy.frombuffer(part, "<u8", count=max(0, len(part) - begun) // 8, offset=min(begun, len(part)))
        total += int(words.sum(dtype="u8"))
        rest += bytes(part[begun + words.nbytes :])
    return (total + int.from_bytes(rest, "little")) % 2**64


def _new_name(seconds: float) -> str:
    return f"{int(time.time() + seconds) + 1}-{secrets.token_hex(8)}"


def _reserve(place: Path, size: int, seconds: float) -> Path | None:
    """Return a file of that size, new or a spare, or None where there is no room: one process at a time looks."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        taken, room = sweep(place), os.fstatvfs(handle)
        free = room.f_bavail * room.f_frsize
        spares = [(one, one.stat().st_size) for one in place.iterdir() if SPARE.fullmatch(one.name)]
        spares.sort(key=lambda spare: abs(spare[1] - size), reverse=True)  # the last fits best
        while True:
            spare, had = spares.pop() if spares else (None, 0)
            if taken - had + size <= MOST and 2 * (size - had) <= free:
                break
            if spare is None:
                return None
            spare.unlink()
            taken, free = taken - had, free + had
        path = place / _new_name(seconds)
        if spare is None:
            path.touch(0o640, exist_ok=False)
        else:
            spare.rename(path)
        os.truncate(path, size)
        return path
    finally:
        os.close(handle)


def _write_all(file: Any, part: Any) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[file.write(rest) :]


def _content(path: Path) -> memoryview:
    """Return a file's content, in memory of this process's own."""
    import numpy

    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        found = os.fstat(file)
        if found.st_uid != os.geteuid():
            raise OSError("it is somebody else's")
        content = memoryview(numpy.empty(found.st_size, "u1"))  # not filled with zeros first
        done = 0
        while done < len(content) and (more := os.readv(file, [content[done:]])):
            done += more
    finally:
        os.close(file)
    return content[:done]
