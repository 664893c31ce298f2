"""Replace files and links so that nobody ever reads half of one. Standard library only, for runtime and modules."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def write_atomically(
    path: Path, content: str | bytes, mode: int = 0o644, owner: str | int | None = None, group: str | int | None = None
) -> None:
    """Replace a file in one step, with its content on the disk. Raises OSError naming `path`; the old stays then."""
    encoded = in_bytes(content)
    with replacing(path, mode, owner, group) as file:
        file.write(encoded)


@contextlib.contextmanager
def replacing(
    path: Path, mode: int = 0o644, owner: str | int | None = None, group: str | int | None = None
) -> Iterator[IO[bytes]]:
    """Give a file to write that replaces `path` in one step, once it is complete and on the disk. Raises OSError.

    It is beside it, under a name that begins with a dot. Where it fails, the old file stays.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with new_file(draft, mode, owner, group) as file:
            yield file
        draft.replace(path)
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # set to None it would be told
        raise


def write_new(
    path: Path, content: str | bytes, mode: int = 0o644, owner: str | int | None = None, group: str | int | None = None
) -> None:
    """Write a new file, to the disk, in place of what is there. Raises OSError, and leaves nothing half written."""
    encoded = in_bytes(content)
    with new_file(path, mode, owner, group) as file:
        file.write(encoded)


def text_of(path: Path) -> str:
    """Return the text of a file that may be somebody else's: `in_bytes` gives back what is no UTF-8. Raises OSError."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def text_if_there(path: Path) -> str:
    """Return the text of a file, or of a process's; "" where it is not there, or goes in this moment."""
    try:
        return text_of(path)
    except (FileNotFoundError, ProcessLookupError):
        return ""


def in_bytes(content: str | bytes) -> bytes:
    """Return a file's content as it is written."""
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content


@contextlib.contextmanager
def new_file(
    path: Path, mode: int = 0o644, owner: str | int | None = None, group: str | int | None = None
) -> Iterator[IO[bytes]]:
    """Give a new file to write, in place of what is there. Raises OSError, and leaves nothing half written.

    Until it is complete and has its owner and mode, nobody else can open it.
    """
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            if owner is not None or group is not None:
                shutil.chown(path, owner, group)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        error.filename = str(path)
        raise


def replace_text(path: Path, text: str, mode: int | None = None) -> None:
    """Replace a file in one step, not forced to the disk: for what is written again in seconds. Raises OSError.

    Without `mode` it has the one that the process's umask leaves.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    if mode is not None:
        draft.chmod(mode)
    draft.replace(path)


def point(link: Path, target: str) -> bool:
    """Make `link` lead to `target` in one step, which needs no space on the disk; say whether it did not before."""
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    draft = link.with_name(f".{link.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty when there is none, or something else."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def certificate_end(path: str) -> float | None:
    """Return when a certificate ends, as Unix time; None where it is not there, can't be read, or is something else."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        # The only thing in Python's own library that reads a certificate without a connection.
        return float(ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(path)["notAfter"]))
    return None


def write_json(path: Path, content: dict[str, Any], mode: int = 0o644) -> None:
    """Replace a file by a JSON object. Raises OSError."""
    write_atomically(path, json.dumps(content, indent=1) + "\n", mode)
