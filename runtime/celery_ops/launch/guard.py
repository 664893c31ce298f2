"""The guard: makes sure that a program runs once, then becomes it.

Supervisor starts ``celery-ops-guard ... -- celery ...``. The guard drops root, takes the lock
``<pidfile>.lock`` (an flock that stays with the program through exec, and with its pool children), ends what
an earlier supervisor left behind, clears a pidfile that means nothing any more, asks for a TERM when the
supervisor dies, and execs. The lock is the truth, the pidfile a hint; `process` says who is who.

Exit status: 0 told to stop while waiting, 73 runs already, 75 try again, 78 configuration (2 command line).
"""

import argparse
import contextlib
import fcntl
import os
import resource
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from celery_ops import pause as pausing
from celery_ops.launch import env, listener
from celery_ops.launch.process import (
    EX_CANTCREAT,
    EX_CONFIG,
    MARK,
    ExitError,
    Identity,
    Process,
    become,
    command,
    end_with,
    find,
    make_directory,
    marked,
    owner,
)
from celery_ops.launch.termination import Say, Termination
from celery_ops.layout import CANARY, HEARTBEAT, OPEN_FILES

STOP = {signal.SIGTERM, signal.SIGINT}
POLL = 0.1
FOREIGN_PATIENCE = 5.0
"""Seconds to wait for a lock that something unknown holds; also what an ending process may take to let go."""
LISTENER_PATIENCE = 30.0


class Stopped(Exception):
    """A TERM came while the guard was waiting."""


def pause() -> None:
    """Wait one poll interval; raise Stopped when told to stop (STOP is blocked, so none is lost)."""
    if signal.sigtimedwait(STOP, POLL):
        raise Stopped


def run(options: argparse.Namespace, parent: int, say: Say) -> NoReturn:
    """Take the lock, then become the program. Raises Stopped, ExitError and EnvFileError."""
    make_directory(options.pidfile.parent, options.user)
    allow_open_files()
    account = become(options.user)
    end_with(parent)

    environment = {**os.environ, **account}
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if options.env_file:
        environment.update(env.load(options.env_file))
    environment = env.with_release(environment)
    if options.chdir:
        _change_directory(options.chdir)
    program = env.find_program(options.command[0], environment["PATH"])

    myself = find(os.getpid())
    me = Identity(
        app=options.app,
        program=options.program,
        pidfile=str(options.pidfile),
        pid=myself.pid,
        start=myself.start,
        parent=parent,
        group=myself.group,
    )
    lock = take_over(me, options.drain_timeout, say)
    clear_pidfile(options.pidfile, say)
    if options.listen_from:
        await_open(options.app, options.program, say)
        # systemd's protocol: the socket is fd 3, meant for the process with this pid.
        os.dup2(listener.receive(options.listen_from, LISTENER_PATIENCE, pause), 3)
        os.set_inheritable(3, True)
        environment.update(LISTEN_FDS="1", LISTEN_PID=str(me.pid))

    environment.update(
        {
            MARK: me.dump(),
            "CELERY_OPS_APP": me.app,
            "CELERY_OPS_PROGRAM": me.program,
            # So that this virtualenv is not removed while it runs, whatever title it gives itself.
            "CELERY_OPS_VIRTUALENV": str(Path(sys.prefix).resolve()),
            "CELERY_OPS_DRAIN_TIMEOUT": f"{options.drain_timeout:g}",
            "CELERY_OPS_CANARY_FILE": str(options.pidfile.with_name(me.program + CANARY)),
            "CELERY_OPS_HEARTBEAT_FILE": str(options.pidfile.with_name(me.program + HEARTBEAT)),
            # setproctitle would otherwise write its titles over the environment, and the mark with it.
            "SPT_NOENV": "1",
            **({"CELERY_OPS_MAX_MEMORY": str(options.max_memory)} if options.max_memory else {}),
            **({"CELERY_OPS_NO_STAND_IN": "1"} if options.no_stand_in else {}),
        }
    )
    os.set_inheritable(lock, True)
    if signal.sigpending() & STOP:
        raise Stopped
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    try:
        os.execve(program, options.command, environment)
    except OSError as error:
        raise ExitError(EX_CONFIG, f"{program}: {error.strerror}; type: head -1 {shlex.quote(program)}") from None


def await_open(app: str, program: str, say: Say) -> None:
    """Wait while the web is closed for maintenance: the listener answers. Raises Stopped."""
    path = pausing.file(app)
    if not pausing.is_web_closed(pausing.read(path), program):
        return
    say("closed for maintenance; starts when it is over")
    while pausing.is_web_closed(pausing.read(path), program):
        pause()
    say("the maintenance is over")


def allow_open_files(wanted: int = OPEN_FILES) -> int:
    """Let the program open `wanted` files, or as many as may be; return that.

    Supervisor hands on a limit of 1024, which 500 tasks at a time with two sockets each reach. Only root raises the
    hard limit, and not in every container.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return soft
    if hard != resource.RLIM_INFINITY and hard < wanted:
        with contextlib.suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _change_directory(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise ExitError(
            EX_CONFIG, f"--chdir {directory}: {error.strerror}; type: ls -ld {shlex.quote(directory)}"
        ) from None


def take_over(me: Identity, drain_timeout: float, say: Say) -> int:
    """Return the lock's file descriptor once it is ours and no process of an earlier start is left.

    An orphan of ours gets one TERM and `drain_timeout` seconds, then KILL. Raises ExitError (73) when the
    program runs already under a living supervisor, or something unknown holds the lock; neither is touched.
    """
    path = Path(f"{me.pidfile}.lock")
    termination = Termination(drain_timeout, say)
    patience = time.monotonic() + FOREIGN_PATIENCE
    lock = None
    while True:
        lock = _try_lock(path) if lock is None else lock
        processes = marked(me.pidfile)
        mains = [process for process in processes if process.is_main]
        for main in mains:
            if main.parent == main.identity.parent:
                _refuse(main, main.identity)
        if lock is not None and not mains:
            os.ftruncate(lock, 0)
            os.pwrite(lock, me.dump().encode() + b"\n", 0)
            return lock

        processes = [process for process in processes if process.is_main or process.group == process.identity.group]
        if processes:
            termination.step(mains or processes, processes)
            patience = time.monotonic() + FOREIGN_PATIENCE
        else:
            _refuse_foreign_holder(path, patience)
        pause()


def _try_lock(path: Path) -> int | None:
    """Return a file descriptor that holds the lock, or None where another process holds it."""
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ExitError(
            EX_CONFIG,
            f"{path}: {error.strerror}; the directory must belong to {owner(os.getpid())}, "
            f"type: ls -ld {shlex.quote(str(path.parent))} {shlex.quote(str(path))}",
        ) from None
    # Out of the way of fd 3, where a listening socket goes.
    lock = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(opened)
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock on a file that was deleted meanwhile guards nothing.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    os.close(lock)
    return None


def _refuse_foreign_holder(path: Path, patience: float) -> None:
    """The lock is held, and by nothing that carries our mark: a guard that is starting, or a foreign holder."""
    identity = Identity.load(path.read_text(errors="replace")) if path.exists() else None
    process = find(identity.pid) if identity else None
    if process and process.start == identity.start and process.parent == identity.parent:
        _refuse(process, identity)
    if time.monotonic() > patience:
        raise ExitError(
            EX_CANTCREAT,
            f"{path} is locked by something that is not ours, and was left alone; "
            f"see who: find /proc/[0-9]*/fd -lname {shlex.quote(str(path))} 2>/dev/null",
        )


def _refuse(process: Process, identity: Identity) -> NoReturn:
    raise ExitError(
        EX_CANTCREAT,
        f"{identity.program} runs already: pid {process.pid}, since {process.since}, under supervisor "
        f"{identity.parent}; left alone. To replace it, stop it first: supervisorctl stop {identity.program}",
    )


def clear_pidfile(path: Path, say: Say) -> None:
    """Remove a pidfile that an earlier start left, saying what it held. Only for the holder of the lock.

    Raises ExitError when it can't be read or removed.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        path.unlink(missing_ok=True)
        say(f"{path} {_meaning(text)}; removed")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ExitError(EX_CONFIG, f"{path}: {error.strerror}; type: rm -f {shlex.quote(str(path))}") from None


def _meaning(text: str) -> str:
    if not text.strip():
        return "is empty"
    if not text.strip().isascii() or not text.strip().isdigit() or not 0 < int(text) < 2**31:
        return f"holds no pid but {text[:40]!r}"
    pid = int(text)
    if pid == os.getpid():
        return "names this very process"
    if find(pid) is None:
        return f"names pid {pid}, which is gone"
    return f"names pid {pid}, now another program ({command(pid)[:80]!r} of {owner(pid)}), which was left alone"
