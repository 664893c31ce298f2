"""Environment files: ``KEY=value`` lines that this module and a POSIX shell read alike.

Values are quoted as ``shlex.quote`` does, so that an operator can also type ``set -a; . /etc/petct/env``.
What a shell would expand or run (``$``, backquotes, ``;``, a space) has to stand in single quotes.
"""

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

EX_CONFIG = 78
RUNTIME = Path(__file__).resolve().parents[2]
"""Where `celery_ops` is imported from: in the release, beside the virtualenv that other releases may share."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PIECE = r"""[A-Za-z0-9_@%+=:,./-]+|'[^']*'|"[^"$`\\]*\""""
_VALUE = re.compile(f"(?:{_PIECE})*")


class EnvFileError(ValueError):
    """An environment that can't be read, or lacks the program; the message never shows a value."""


def application_name(otherwise: str) -> str:
    """Return the name of the application that this process belongs to; `otherwise` where nothing tells."""
    # The guard sets the first for programs, the environment file the second for whoever asks: both are the name.
    return os.environ.get("CELERY_OPS_APP") or os.environ.get("CELERY_OPS_DEFAULT_QUEUE") or otherwise


def connection_name() -> str:
    """Return what this program calls its connections to the broker, by which status.yml finds it; "" for no program."""
    program, host = os.environ.get("CELERY_OPS_PROGRAM"), os.environ.get("CELERY_OPS_HOST")
    return f"{program} on {host}" if program and host else ""


def parse(text: str, name: str = "<env>") -> dict[str, str]:
    """Return the variables in `text`; `name` is the file named in errors.

    Raises EnvFileError for a line that isn't ``KEY=value``, isn't quoted soundly, or names a key twice.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, raw = line.partition("=")
        where = f"{name}:{number}"
        if not equals or not _KEY.fullmatch(key):
            raise EnvFileError(f"{where}: not KEY=value (a key is [A-Za-z_][A-Za-z0-9_]*, nothing before it)")
        if not _VALUE.fullmatch(raw):
            raise EnvFileError(f"{where}: the value of {key} must be quoted; write {key}='...' with single quotes")
        if key in variables:
            raise EnvFileError(f"{where}: {key} is set a second time; keep one of the two lines")
        variables[key] = "".join(_unquote(piece) for piece in re.findall(_PIECE, raw))
    return variables


def _unquote(piece: str) -> str:
    return piece[1:-1] if piece[0] in "'\"" else piece


def load(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the variables in the file at `path`; raise EnvFileError when it can't be read or parsed."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise EnvFileError(f"{path}: {error.strerror}; look at it with: ls -l {shlex.quote(str(path))}") from None
    except UnicodeDecodeError as error:
        raise EnvFileError(f"{path}: not UTF-8 at byte {error.start}") from None
    return parse(text, str(path))


def with_release(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` as in this release's activated virtualenv, with the kit's commands and `celery_ops`."""
    commands = [f"{sys.prefix}/bin", str(RUNTIME.with_name("bin"))]
    return {
        **environment,
        "PATH": _first(commands, environment.get("PATH") or os.defpath),
        "PYTHONPATH": _first([str(RUNTIME)], environment.get("PYTHONPATH", "")),
        "VIRTUAL_ENV": sys.prefix,
    }


def _first(directories: list[str], path: str) -> str:
    others = [each for each in path.split(os.pathsep) if each and each not in directories]
    return os.pathsep.join([*directories, *others])


def find_program(word: str, path: str) -> str:
    """Return the file that a command's first word means on this PATH; raise EnvFileError where there is none."""
    if found := shutil.which(word, path=path):
        return found
    where = f"; type: ls -l {shlex.quote(word)}" if "/" in word else f" in the virtualenv {sys.prefix}, nor in {path}"
    raise EnvFileError(f"no program {word}{where}")


def account() -> dict[str, str]:
    """Return HOME, USER and LOGNAME of this process's user; runuser leaves root's. Empty for a user without a name."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return {}
    return {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
