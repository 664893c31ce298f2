"""Processes and who they are: a pid alone names nobody; start time, user and the guard's mark must agree."""

import contextlib
import ctypes
import json
import os
import pwd
import shlex
import signal
import stat
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from celery_ops import proc
from celery_ops.errors import OperatorError

MARK = "CELERY_OPS_GUARDED"
EX_TEMPFAIL, EX_CANTCREAT, EX_CONFIG = 75, 73, 78

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class ExitError(OperatorError):
    """Why a program doesn't start, for the operator; `code` is the exit status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Identity:
    """Who a guarded program is; stands in its lock file and in the environment of it and its children."""

    app: str
    program: str
    pidfile: str
    pid: int
    start: int
    """Start time in clock ticks since boot; with the pid it names one process, however pids are reused."""
    parent: int
    """The supervisor's pid. While it is the parent, the program is supervised; after that, an orphan."""
    group: int

    def dump(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Identity | None":
        """Return the identity in `text`, or None where there is none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Process(proc.Stat):
    """A live process, and what the guard wrote into its environment."""

    identity: Identity | None = None
    drain_timeout: float = 0.0
    """Seconds that it may finish its work in, as its guard was told; 0 where that is not known."""
    max_memory: int = 0
    """Bytes after which the watchdog recycles it; 0 for never."""
    has_stand_in: bool = True
    """Whether another one works beside it meanwhile."""

    @property
    def is_main(self) -> bool:
        """Whether it is the guarded program itself, not a child that inherited the mark."""
        return self.identity is not None and (self.identity.pid, self.identity.start) == (
            self.pid,
            self.start,
        )

    @property
    def since(self) -> str:
        """Return when it started, in local time."""
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - self.age))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this very process, never to another that got its pid."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                now = find(self.pid)
                if now is not None and now.start == self.start:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def find(pid: int) -> Process | None:
    """Return the process with this pid, None when there is none or only its zombie."""
    found = proc.stat(pid)
    return Process(**vars(found)) if found else None


def of_this_user() -> list[Process]:
    """Return this user's processes, those that carry the guard's mark with their identity; the caller left out."""
    found = []
    for pid in proc.pids():
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            entry = proc.PROC / str(pid)
            if entry.stat().st_uid == os.getuid():
                mark = _mark(entry)
                process = find(pid)
                if process:
                    found.append(replace(process, **mark))
    return found


def marked(pidfile: str) -> list[Process]:
    """Return this user's processes that carry the guard's mark for `pidfile`, the caller left out."""
    return [process for process in of_this_user() if process.identity and process.identity.pidfile == pidfile]


def _mark(entry: Path) -> dict[str, Any]:
    """Return what the guard wrote into a process's environment: who it is, the seconds it may drain for, and so on."""
    found = {}
    for variable in (entry / "environ").read_bytes().split(b"\0"):
        name, _, value = variable.decode(errors="replace").partition("=")
        found[name] = value
    drains = found.get("CELERY_OPS_DRAIN_TIMEOUT", "")
    seconds = float(drains) if drains.replace(".", "", 1).isdigit() else 0.0
    most = found.get("CELERY_OPS_MAX_MEMORY", "")
    return {
        "identity": Identity.load(found.get(MARK, "")),
        "drain_timeout": seconds,
        "max_memory": int(most) if most.isdigit() else 0,
        "has_stand_in": "CELERY_OPS_NO_STAND_IN" not in found,
    }


def command(pid: int) -> str:
    """Return the command line of a process, "" where it can't be read."""
    try:
        return shlex.join(proc.words(pid))
    except OSError:
        return ""


def owner(pid: int) -> str:
    """Return the name of the user a process runs as."""
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
        return pwd.getpwuid(uid).pw_name
    except FileNotFoundError:
        return "nobody any more"
    except KeyError:
        return str(uid)


def report(who: str, message: str) -> None:
    """Print a line for the program's log. A dead supervisor no longer reads it, which must harm nobody."""
    with contextlib.suppress(OSError):
        print(f"{who}: {message}", file=sys.stderr, flush=True)


def make_directory(directory: Path, user: str | None) -> None:
    """Make `directory` (0755, owned by `user`) unless it is there. /run is empty after a reboot.

    Raises ExitError with the command to type.
    """
    if directory.is_dir():
        return
    made = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place complete: another guard never finds it there but still root's.
        made = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        made.chmod(0o755)
        if user and os.geteuid() == 0:
            entry = _account(user)
            os.chown(made, entry.pw_uid, entry.pw_gid)
        made.rename(directory)
    except OSError as error:
        if made is not None:
            made.rmdir()
        if not directory.is_dir():
            name = user or pwd.getpwuid(os.getuid()).pw_name
            raise ExitError(
                EX_CONFIG,
                f"{directory} is missing and can't be made ({error.strerror}); type as root: "
                f"install -d -o {name} -g {name} -m 0755 {shlex.quote(str(directory))}",
            ) from None


def become(user: str | None) -> dict[str, str]:
    """Drop root's privileges for those of `user`; return the environment variables that go with it.

    Raises ExitError for an unknown user, and when this is neither root nor `user`.
    """
    if user is None:
        return {}
    entry = _account(user)
    if os.geteuid() == 0:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        # The kernel hides /proc/<pid> of a process that changed its user; other guards have to read it.
        _prctl(_PR_SET_DUMPABLE, 1)
    elif entry.pw_uid != os.geteuid():
        me = pwd.getpwuid(os.geteuid()).pw_name
        raise ExitError(EX_CONFIG, f"started as {me}, so it can't become {user}: start it as root or as {user}")
    return {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}


def user_id(user: str | None) -> int | None:
    """Return a user's number, None for none. Raises ExitError for an unknown user."""
    return None if user is None else _account(user).pw_uid


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ExitError(EX_CONFIG, f"there is no user {user!r}; type: getent passwd {shlex.quote(user)}") from None


def end_with(parent: int) -> None:
    """Ask the kernel for a TERM when `parent` dies. Call it after `become`: changing user clears it.

    Raises ExitError when `parent` is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # An orphan from the start: Supervisor's child whose parent is an init that isn't Supervisor.
    adopted = parent == 1 and "SUPERVISOR_ENABLED" in os.environ and "supervisord" not in (command(1) or "supervisord")
    if os.getppid() != parent or adopted:
        raise ExitError(EX_TEMPFAIL, "the supervisor died while this was starting; its successor starts it again")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def remove_socket(path: Path) -> None:
    """Remove a unix socket's file, and nothing that isn't one."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
