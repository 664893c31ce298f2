"""The code of the web's listener: outside every release, in a directory for each version of it."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

LISTENER = ("celery_ops/__init__.py", "celery_ops/listener.py", "celery_ops/process.py")
"""What the web's listener runs, of the runtime: while that is the same, no deploy touches it."""


def put(source: Path, target: Path) -> None:
    """Move a file or a folder to where it belongs, whatever is there."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def listener_version(read: Callable[[str], bytes]) -> str:
    """The hash of what the web's listener runs; `read` returns a file of the runtime."""
    return hashlib.sha256(b"".join(hashlib.sha256(read(name)).digest() for name in LISTENER)).hexdigest()[:12]


def listener_of(base: Path, wheel: Path) -> Path:
    """Where the listener of a release runs from: outside every release, across deploys."""
    with zipfile.ZipFile(wheel) as archive:
        return base / "listeners" / listener_version(archive.read)


def install_listener(base: Path, wheel: Path) -> bool:
    """Put the runtime's code where this version of the listener runs from; say whether it was not there."""
    folder = listener_of(base, wheel)
    if (folder / "__main__.py").exists():
        return False
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(fresh, [name for name in archive.namelist() if name.startswith("celery_ops/")])
    (fresh / "__main__.py").write_text("from celery_ops.listener import main\n\nmain()\n")
    put(fresh, folder)
    return True


def prune_listeners(base: Path, used: str) -> None:
    """Remove the versions of the listener that `used`, the text of the program files, does not name."""
    folders = [base / "listener", *(base / "listeners").glob("*")]
    for folder in folders:
        if folder.is_dir() and not re.search(rf"{re.escape(str(folder))}\s", used):
            shutil.rmtree(folder)
