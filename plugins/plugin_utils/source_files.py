"""Which files of an application's source belong to a release."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
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

NO_REPOSITORY = re.compile(r"not a git repository \(or any|must be run in a work tree")
"""What git says of a directory that is in none."""
LFS, POINTER = b"version https://git-lfs.github.com/spec/", 1024
"""What a file of Git LFS begins with that was not fetched, and how long it is at most."""


@dataclass
class Files:
    """The files of a release, by their names below the source, what was left out, by reason, and closed directories."""

    names: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

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
    `exclude` are the operator's own patterns. Raises OperatorError for a submodule that was not fetched, and for what
    can't be read.
    """
    found = Files()
    _collect(directory, "", found, checked_out)
    kept = []
    for name in sorted(set(found.unreadable)):
        if not excluded(name, [*UNTRACKED, *exclude]):
            raise _closed(directory, name)
    for name in sorted(set(found.names)):
        path = directory / name
        if excluded(name, exclude):
            continue
        if path.is_symlink():
            kept.append(name)
            if leads_out(name, str(path.readlink())):
                found.leave_out("what a link out of the source leads to", name)
        elif path.is_file():
            kept.append(name)
            if not os.access(path, os.R_OK, effective_ids=True):
                raise _closed(directory, name)
        elif path.is_dir():
            found.leave_out("a file in git, a directory in the working copy", name)
        else:
            found.leave_out("no regular file" if path.exists() else "in git, but not in the working copy", name)
    found.names = kept
    return found


def leads_out(name: str, target: str) -> bool:
    """Whether a link leads to what a host does not get with the source."""
    return target.startswith("/") or os.path.normpath(Path(name).parent / target).split("/")[0] == ".."


def _closed(directory: Path, name: str) -> OperatorError:
    pattern = name.rstrip("/")
    return OperatorError(
        f"celery_app_source is {directory}: the user who runs ansible-playbook may not read {name}. Type: "
        f"chmod -R a+rX {shlex.quote(str(directory / pattern))}. Or leave it out: "
        f"celery_app_source_exclude: [{pattern}]"
    )


def refuse_pointers(directory: Path, names: list[str]) -> None:
    """Raise OperatorError where files that Git LFS keeps were not fetched: the release would hold pointers to them."""
    attributes = [directory / name for name in names if name.rpartition("/")[2] == ".gitattributes"]
    if not any("filter=lfs" in path.read_text(errors="replace") for path in attributes if path.is_file()):
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
    others, closed = ([], []) if checked_out else _untracked(directory)
    found.unreadable += [below + name for name in closed]
    if not tracked and not others:
        # A checkout, no repository, or a directory that the repository around it does not know.
        names = [below + name for name in _walk(directory, below, found)]
        found.names += names if checked_out else [name for name in names if not excluded(name, UNTRACKED)]
        return
    for name in _git_list(directory, "--others", "--ignored", "--exclude-standard", "--directory"):
        if not excluded(below + name.rstrip("/"), UNTRACKED):
            found.leave_out("git ignores it", below + name)
    for name in [*tracked, *(name for name in others if not excluded(below + name.rstrip("/"), UNTRACKED))]:
        path = directory / name
        if path.is_dir() and not path.is_symlink():  # a submodule, or a repository inside this one
            if name in tracked and not _is_submodule(directory, name):
                found.names.append(below + name)  # a file that a directory has replaced; what is in it is untracked
                continue
            if name in tracked and not (path / ".git").exists():
                raise OperatorError(
                    f"{below}{name} is a git submodule that was not fetched. Type, in {root}: "
                    "git submodule update --init --recursive"
                )
            _collect(root, f"{below}{name.rstrip('/')}/", found, checked_out)
        else:
            found.names.append(below + name)


def _walk(directory: Path, below: str, files: Files) -> list[str]:
    def closed(error: OSError) -> None:
        files.unreadable.append(below + str(Path(error.filename).relative_to(directory)))

    found = []
    for at, directories, names in os.walk(directory, onerror=closed):
        here = Path(at).relative_to(directory)
        links = [name for name in directories if (Path(at) / name).is_symlink()]
        directories[:] = [name for name in directories if not excluded(str(here / name), ("**/.git",))]
        found += [str(here / name) for name in [*names, *links]]
    return found


def _git_list(directory: Path, *options: str) -> list[str]:
    """What `git ls-files` lists below a directory; nothing where there is no repository. Raises OperatorError."""
    return _ls_files(directory, *options)[0]


def _is_submodule(directory: Path, name: str) -> bool:
    """Whether git has a commit of another repository at a path."""
    return any(line.startswith("160000 ") for line in _git_list(directory, "--stage", "--", f":(literal){name}"))


def _untracked(directory: Path) -> tuple[list[str], list[str]]:
    """What git neither has nor ignores below a directory, and the directories that it could not read."""
    names, said = _ls_files(directory, "--others", "--exclude-standard")
    return names, re.findall(r"could not open directory '(.*?)/?': Permission denied", said)


def _ls_files(directory: Path, *options: str) -> tuple[list[str], str]:
    # The owner of a working copy may be another; nothing of its configuration is run by listing.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(directory), "ls-files", "-z"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["LC_ALL"] = "C.UTF-8"
    try:
        done = subprocess.run([*command, *options], capture_output=True, env=environment, check=False)
    except OSError:
        if not (directory / ".git").exists():
            return [], ""
        raise OperatorError(
            f"celery_app_source is {directory}, a working copy of git, and git is not on the control node: what it "
            "ignores would be in the release. Type there: apt-get install git"
        ) from None
    said = os.fsdecode(done.stderr)
    if done.returncode and not NO_REPOSITORY.search(said):
        raise OperatorError(
            f"celery_app_source is {directory}, and git can't list its files, so that what it ignores would be in the "
            f"release: {said.strip()}\nLook: git -C {shlex.quote(str(directory))} status. Of a worktree or submodule, "
            "its repository has to be there as well."
        )
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name and not done.returncode], said
