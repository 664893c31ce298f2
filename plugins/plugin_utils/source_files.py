"""Which files of an application's source belong to a release."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError

UNTRACKED = (
    "**/.git", "**/.hg", "**/.svn", "**/.venv", "**/venv", "**/node_modules", "**/.tox", "**/__pycache__", "**/*.pyc",
    "**/.pytest_cache", "**/.ruff_cache", "**/.mypy_cache", "**/*.egg-info", "**/*.sqlite3*",
)  # fmt: skip
"""What no directory brings into a release, unless git has it."""
PRIVATE = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".netrc", ".pgpass", ".pypirc", ".npmrc", ".htpasswd", "*.log",
)  # fmt: skip
"""Names of files that only root and the application read on a host."""

LFS, POINTER = b"version https://git-lfs.github.com/spec/", 1024
"""What a file of Git LFS begins with that was not fetched, and how long it is at most."""


@dataclass
class Files:
    """The files of a release, by their names below the source, and what was left out, by reason."""

    names: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, why: str, name: str) -> None:
        """Leave a file out, to be said."""
        self.left_out.setdefault(why, []).append(name)


def matches(name: str, pattern: str) -> bool:
    """Whether a path, or a directory that it is in, is what a pattern names.

    A pattern is anchored at the source's root, part by part; `**/` at its beginning is any directory.
    """
    parts, wanted = name.split("/"), pattern.strip("/").split("/")
    starts = range(len(parts)) if wanted[0] == "**" else range(1)
    wanted = wanted[1:] if wanted[0] == "**" else wanted
    return any(
        len(parts) - start >= len(wanted) and all(map(fnmatch.fnmatchcase, parts[start:], wanted)) for start in starts
    )


def excluded(name: str, patterns: list[str] | tuple[str, ...]) -> bool:
    """Whether a path stays out of a release."""
    return any(matches(name, pattern) for pattern in patterns)


def is_private(name: str) -> bool:
    """Whether a file's name is that of a secret, a key or a log."""
    name = name.rpartition("/")[2]
    sample = name.endswith((".example", ".sample", ".template", ".dist"))
    return not sample and any(fnmatch.fnmatchcase(name, pattern) for pattern in PRIVATE)


def files_of(directory: Path, exclude: list[str], checked_out: bool = False) -> Files:
    """Every file and link of a source that belongs to a release, sorted.

    What is in git is in the release. Of a directory what git ignores is left out, and what `UNTRACKED` names.
    `exclude` are the operator's own patterns. Raises OperatorError for a submodule that was not fetched.
    """
    found = Files()
    _collect(directory, "", found, checked_out)
    kept = []
    for name in sorted(set(found.names)):
        path = directory / name
        if excluded(name, exclude):
            continue
        if path.is_symlink() or path.is_file():
            kept.append(name)
        elif path.exists():
            found.leave_out("no regular file", name)
    found.names = kept
    return found


def refuse_pointers(directory: Path, names: list[str]) -> None:
    """Raise OperatorError where files that Git LFS keeps were not fetched: the release would hold pointers to them."""
    attributes = [directory / name for name in names if name.rpartition("/")[2] == ".gitattributes"]
    if not any("filter=lfs" in path.read_text(errors="replace") for path in attributes):
        return
    for path in (directory / name for name in names):
        if not path.is_symlink() and path.stat().st_size < POINTER and path.read_bytes().startswith(LFS):
            raise OperatorError(
                f"{path.relative_to(directory)} is kept by Git LFS and was not fetched. Type, on the control node: "
                "apt-get install git-lfs && git lfs install; in a working copy also: git lfs pull"
            )


def _collect(root: Path, below: str, found: Files, checked_out: bool) -> None:
    directory = root / below
    tracked = [] if checked_out else _git_list(directory, "--cached")
    others = [] if checked_out else _git_list(directory, "--others", "--exclude-standard")
    if not tracked and not others:
        # A checkout, no repository, or a directory that the repository around it does not know.
        names = [below + name for name in _walk(directory)]
        found.names += names if checked_out else [name for name in names if not excluded(name, UNTRACKED)]
        return
    for name in _git_list(directory, "--others", "--ignored", "--exclude-standard", "--directory"):
        if not excluded(below + name.rstrip("/"), UNTRACKED):
            found.leave_out("git ignores it", below + name)
    for name in [*tracked, *(name for name in others if not excluded(below + name.rstrip("/"), UNTRACKED))]:
        path = directory / name
        if path.is_dir() and not path.is_symlink():  # a submodule, or a repository inside this one
            if name in tracked and not any(path.iterdir()):
                raise OperatorError(
                    f"{below}{name} is a git submodule that was not fetched. Type, in {root}: "
                    "git submodule update --init --recursive"
                )
            _collect(root, f"{below}{name.rstrip('/')}/", found, checked_out)
        else:
            found.names.append(below + name)


def _walk(directory: Path) -> list[str]:
    found = []
    for at, directories, names in os.walk(directory):
        here = Path(at).relative_to(directory)
        links = [name for name in directories if (Path(at) / name).is_symlink()]
        directories[:] = [name for name in directories if not excluded(str(here / name), ("**/.git",))]
        found += [str(here / name) for name in [*names, *links]]
    return found


def _git_list(directory: Path, *options: str) -> list[str]:
    """What `git ls-files` lists below a directory; nothing where there is no git or no repository."""
    # The owner of a working copy may be another; nothing of its configuration is run by listing.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(directory), "ls-files", "-z"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run([*command, *options], capture_output=True, env=environment, check=False)
    except OSError:
        return []
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name] if done.returncode == 0 else []
