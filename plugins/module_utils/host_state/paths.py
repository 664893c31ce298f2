"""Files and directories with their owners and modes, and single lines of files that somebody else owns."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import in_bytes, text_of, write_atomically, write_new
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import HIDDEN, Outcome


@dataclass(frozen=True)
class Access:
    """Owner, group and mode; None stays as it is, and for what is new is root's."""

    mode: int
    owner: str | None = None
    group: str | None = None


def directory(path: Path, access: Access, outcome: Outcome) -> None:
    """Make a directory, with those above it, and correct its owner and mode. Raises OperatorError.

    A link in its place is followed where root has made it, as for a bigger disk; one of somebody else's would give
    away whatever it leads to.
    """
    if path.is_symlink() and path.lstat().st_uid:
        raise OperatorError(f"{path} is a link that root has not made. Look where it leads, and remove it: rm {path}")
    if path.exists() and not path.is_dir():
        raise OperatorError(f"{path} must be a directory and is something else. Move it away: mv {path} {path}.old")
    if path.is_dir():
        mend_access(path, access, outcome)
        return
    outcome.changed_path(str(path), {"path": str(path), "state": "absent"}, {"path": str(path), "state": "directory"})
    if not outcome.check:
        path.mkdir(mode=0o755, parents=True)
        mend_access(path, access, Outcome())


def file(
    path: Path, content: str, access: Access, outcome: Outcome, *, hidden: bool = False, validate: str = ""
) -> None:
    """Make a file have this content, owner and mode, in one step. Raises OperatorError.

    `validate` is a command that has to accept the new file, with its path for %s. A `hidden` one is in no diff.
    """
    if path.is_dir():
        raise OperatorError(f"{path} must be a file and is a directory. Move it away: mv {path} {path}.old")
    wanted, found = content.encode(), path.read_bytes() if path.is_file() else None
    if found == wanted:
        mend_access(path, access, outcome)
        return
    before, after = ("" if found is None else found.decode(errors="replace")), content
    outcome.changed_path(str(path), *((HIDDEN if before else "", HIDDEN) if hidden else (before, after)))
    if outcome.check:
        return
    draft = path.with_name(f".{path.name}.new")
    try:
        write_new(draft, wanted, access.mode, access.owner or "root", access.group or "root")
        if validate:
            accept(draft, path, validate)
        draft.replace(path)
    except LookupError as error:
        raise OperatorError(f"{path}: there is no such user or group on this host: {error}") from error
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def accept(draft: Path, path: Path, command: str) -> None:
    """Ask a command whether a file is valid. Raises OperatorError with its answer."""
    words = [word.replace("%s", str(draft)) for word in shlex.split(command)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise OperatorError(
            f"{path} stays as it was: {words[0]} refuses the new one. {(done.stdout + done.stderr).strip()}"
        )


def mend_access(path: Path, access: Access, outcome: Outcome) -> None:
    """Set owner, group and mode where they differ. Raises OperatorError for a user or group that is not there."""
    found = path.stat()
    uid = number_of("user", access.owner, path, outcome.check)
    gid = number_of("group", access.group, path, outcome.check)
    before: dict[str, object] = {}
    after: dict[str, object] = {}
    if uid is not None and uid != found.st_uid:
        before["owner"], after["owner"] = found.st_uid, access.owner
    if gid is not None and gid != found.st_gid:
        before["group"], after["group"] = found.st_gid, access.group
    if stat.S_IMODE(found.st_mode) != access.mode:
        before["mode"], after["mode"] = f"{stat.S_IMODE(found.st_mode):04o}", f"{access.mode:04o}"
    if not after:
        return
    outcome.changed_path(str(path), {"path": str(path), **before}, {"path": str(path), **after})
    if not outcome.check:
        # A change of the owner may take bits off the mode.
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        path.chmod(access.mode)


NUMBERS: dict[str, Callable[[str], int]] = {
    "user": lambda name: pwd.getpwnam(name).pw_uid,
    "group": lambda name: grp.getgrnam(name).gr_gid,
}


def number_of(kind: str, name: str | None, path: Path, check: bool) -> int | None:
    """The number of a user or group; None where that stays. One that is not there yet is -1 in check mode."""
    if name is None:
        return None
    try:
        return NUMBERS[kind](name)
    except KeyError:
        if check:
            return -1
        raise OperatorError(f"{path}: this host has no {kind} {name}") from None


def edited(path: Path, outcome: Outcome, edit: str, line: str) -> None:
    """Make a file of somebody else's have a line: at its end, or as an option of an ini file's section (`edit`).

    Raises OperatorError where the file is not there; in check mode a package may be about to bring it.
    """
    if not path.is_file():
        if outcome.check:
            return
        raise OperatorError(f"{path} is not there. Its package brings it: reinstall that")
    before = text_of(path)
    after = with_option(before, edit, line) if edit else with_line(before, line)
    if after == before:
        return
    outcome.changed_path(str(path), *(in_bytes(text).decode(errors="replace") for text in (before, after)))
    if outcome.check:
        return
    found = path.stat()
    # A link stays, and what it leads to is written.
    write_atomically(path.resolve(), after, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def with_line(text: str, line: str) -> str:
    """Return a text with that line, added at the end where it was missing."""
    if line in text.splitlines():
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"


def with_option(text: str, section: str, setting: str) -> str:
    """Return the text of an ini file in whose section an option is set, once; `setting` is `option=value`.

    A comment behind the value, after a space, is none of it, and stays.
    """
    option, _, value = setting.partition("=")
    lines, inside, done = [], False, False
    for line in text.splitlines(keepends=True):
        if header := re.match(r"\s*\[([^]]+)\]", line):
            inside = header[1] == section
        elif inside and (found := re.match(rf"(\s*{re.escape(option)}\s*=\s*)(.*?)((?:\s+[;#].*)?\s*)$", line)):
            if done:
                continue
            line, done = f"{found[1]}{value}{found[3]}", True
        lines.append(line)
    if done:
        return "".join(lines)
    place = next((at for at, line in enumerate(lines, 1) if line.lstrip().startswith(f"[{section}]")), None)
    if place is None:
        return with_line(with_line(text, f"[{section}]"), setting)
    return "".join([*lines[:place], f"{setting}\n", *lines[place:]])
