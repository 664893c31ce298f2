"""The code of the web's listener: outside every release, in a directory for each version of it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

LISTENER = (
    "__init__.py", "errors.py", "launch/__init__.py", "launch/listener.py", "launch/process.py", "listener.py",
    "proc.py", "process.py",
)  # fmt: skip
"""What the listener imports of the runtime, in 0.1 `listener.py` and `process.py`: while that is the same, no deploy
touches it."""


def put(source: Path, target: Path) -> None:
    """Move a file or a directory to where it belongs, whatever is there."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def listener_files(package: Path) -> list[str]:
    """Return the files of `celery_ops` that the listener imports."""
    return [name for name in LISTENER if (package / name).exists()]


def listener_version(package: Path) -> str:
    """Return the hash of what the listener imports of `celery_ops`."""
    digests = [hashlib.sha256((package / name).read_bytes()).digest() for name in listener_files(package)]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def listener_of(base: Path, package: Path) -> Path:
    """Return where the listener of a release runs from: outside every release, across deploys."""
    return base / "listeners" / listener_version(package)


def install_listener(base: Path, package: Path) -> bool:
    """Put the code of `celery_ops` where this version of the listener runs from; say whether it was not there."""
    target = listener_of(base, package)
    if (target / "__main__.py").exists():
        return False
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for name in listener_files(package):
        (fresh / "celery_ops" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, fresh / "celery_ops" / name)
    module = "launch.listener" if (package / "launch").is_dir() else "listener"
    (fresh / "__main__.py").write_text(f"from celery_ops.{module} import main\n\nmain()\n")
    put(fresh, target)
    return True


def prune_listeners(base: Path, used: str) -> None:
    """Remove the versions of the listener that `used`, the text of the program files, does not name."""
    for directory in (base / "listeners").glob("*"):
        if directory.is_dir() and not re.search(rf"{re.escape(str(directory))}\s", used):
            shutil.rmtree(directory)
