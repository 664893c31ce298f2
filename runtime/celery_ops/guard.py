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

from celery_ops import env, listener
from celery_ops.layout import CANARY, HEARTBEAT, TIME_LIMIT, stop_timeout
from celery_ops.process import (
    EX_CANTCREAT,
    EX_CONFIG,
    MARK,
    Identity,
    Process,
    Refused,
    become,
    command,
    end_with,
    find,
    make_folder,
    marked,
    owner,
    report,
)

STOP = {signal.SIGTERM, signal.SIGINT}
POLL = 0.1
STRANGER_PATIENCE = 5.0
"""Seconds to wait for a lock that something unknown holds; also what an ending process may take to let go."""
KILL_PATIENCE = 10.0
LISTENER_PATIENCE = 30.0
OPEN_FILES = 65_536
"""As Debian's units of RabbitMQ and Redis; not without end, as some programs go through all that may be open."""


class Stopped(Exception):
    """A TERM came while the guard was waiting."""


def pause() -> None:
    """Wait one poll interval; raise Stopped when told to stop (STOP is blocked, so none is lost)."""
    if signal.sigtimedwait(STOP, POLL):
        raise Stopped


def main(argv: list[str] | None = None) -> NoReturn:
    """Guard a program, then become it (console script ``celery-ops-guard``)."""
    parent = os.getppid()
    options = _options(argv)

    def say(message: str) -> None:
        report(f"celery-ops-guard {options.program}", message)

    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        _run(options, parent, say)
    except Stopped:
        say("told to stop while waiting")
        sys.exit(0)
    except (Refused, env.EnvFileError) as error:
        say(str(error))
        sys.exit(getattr(error, "code", EX_CONFIG))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celery-ops-guard", description="Make sure that a program runs once, then become it."
    )
    parser.add_argument("--app", required=True, help="the application's name")
    parser.add_argument("--program", required=True, help="the program's name in Supervisor")
    parser.add_argument("--pidfile", required=True, type=Path, help="absolute; the lock is <pidfile>.lock")
    parser.add_argument("--user", help="run as this user (started as root)")
    parser.add_argument("--env-file", help="KEY=value lines for the program's environment")
    parser.add_argument("--chdir", metavar="DIR")
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=stop_timeout(TIME_LIMIT),
        metavar="SECONDS",
        help="how long an orphan may finish its work before it is killed (%(default)s)",
    )
    parser.add_argument(
        "--listen-from",
        type=Path,
        metavar="SOCKET",
        help="take the listening socket from celery-ops-listener",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --: program and arguments")
    options = parser.parse_args(argv)
    if not options.pidfile.is_absolute():
        parser.error(f"--pidfile {options.pidfile} must be an absolute path")
    return options


def _run(options: argparse.Namespace, parent: int, say: listener.Say) -> NoReturn:
    make_folder(options.pidfile.parent, options.user)
    allow_open_files()
    account = become(options.user)
    end_with(parent)

    environment = {**os.environ, **account}
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if options.env_file:
        environment.update(env.load(options.env_file))
    environment = env.with_virtualenv(environment)
    if options.chdir:
        _change_folder(options.chdir)
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
            "CELERY_OPS_VIRTUALENV": sys.prefix,
            "CELERY_OPS_DRAIN_TIMEOUT": f"{options.drain_timeout:g}",
            "CELERY_OPS_CANARY_FILE": str(options.pidfile.with_name(me.program + CANARY)),
            "CELERY_OPS_HEARTBEAT_FILE": str(options.pidfile.with_name(me.program + HEARTBEAT)),
            # setproctitle would otherwise write its titles over the environment, and the mark with it.
            "SPT_NOENV": "1",
        }
    )
    os.set_inheritable(lock, True)
    if signal.sigpending() & STOP:
        raise Stopped
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    try:
        os.execve(program, options.command, environment)
    except OSError as error:
        raise Refused(EX_CONFIG, f"{program}: {error.strerror}; type: head -1 {shlex.quote(program)}") from None


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


def _change_folder(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise Refused(EX_CONFIG, f"--chdir {folder}: {error.strerror}; type: ls -ld {shlex.quote(folder)}") from None


def take_over(me: Identity, drain_timeout: float, say: listener.Say) -> int:
    """Return the lock's file descriptor once it is ours and no process of an earlier start is left.

    An orphan of ours gets one TERM and `drain_timeout` seconds, then KILL. Raises Refused (73) when the
    program runs already under a living supervisor, or something unknown holds the lock; neither is touched.
    """
    path = Path(f"{me.pidfile}.lock")
    eviction = Eviction(drain_timeout, say)
    patience = time.monotonic() + STRANGER_PATIENCE
    lock = None
    while True:
        lock = _try_lock(path) if lock is None else lock
        crew = marked(me.pidfile)
        mains = [process for process in crew if process.is_main]
        for main in mains:
            if main.parent == main.identity.parent:
                _refuse(main, main.identity)
        if lock is not None and not mains:
            os.ftruncate(lock, 0)
            os.pwrite(lock, me.dump().encode() + b"\n", 0)
            return lock

        crew = [process for process in crew if process.is_main or process.group == process.identity.group]
        if crew:
            eviction.step(mains or crew, crew)
            patience = time.monotonic() + STRANGER_PATIENCE
        else:
            _judge_stranger(path, patience)
        pause()


def _try_lock(path: Path) -> int | None:
    """Return a file descriptor that holds the lock, or None where another process holds it."""
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Refused(
            EX_CONFIG,
            f"{path}: {error.strerror}; the folder must belong to {owner(os.getpid())}, "
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


def _judge_stranger(path: Path, patience: float) -> None:
    """The lock is held, and by nothing that carries our mark: a guard that is starting, or a stranger."""
    identity = Identity.load(path.read_text(errors="replace")) if path.exists() else None
    process = find(identity.pid) if identity else None
    if process and process.start == identity.start and process.parent == identity.parent:
        _refuse(process, identity)
    if time.monotonic() > patience:
        raise Refused(
            EX_CANTCREAT,
            f"{path} is locked by something that is not ours, and was left alone; "
            f"see who: find /proc/[0-9]*/fd -lname {shlex.quote(str(path))} 2>/dev/null",
        )


def _refuse(process: Process, identity: Identity) -> NoReturn:
    raise Refused(
        EX_CANTCREAT,
        f"{identity.program} runs already: pid {process.pid}, since {process.since}, under supervisor "
        f"{identity.parent}; left alone. To replace it, stop it first: supervisorctl stop {identity.program}",
    )


class Eviction:
    """Ends processes of ours that nobody supervises: one TERM, time to drain, KILL."""

    def __init__(self, drain_timeout: float, say: listener.Say) -> None:
        self.drain_timeout, self.say = drain_timeout, say
        self.kill_at = time.monotonic() + drain_timeout
        self.give_up_at = self.kill_at + KILL_PATIENCE
        self.sent: set[tuple[int, int, signal.Signals]] = set()

    def step(self, targets: list[Process], crew: list[Process]) -> None:
        """Do what is due: TERM to `targets`, later KILL to all of `crew`.

        Raises Refused (73) when they outlive even that.
        """
        for process in targets:
            who = "has lost its supervisor" if process.is_main else "is a child that outlived it"
            why = f"{who}, has {self.drain_timeout:g} s to finish its work"
            self._send(process, signal.SIGTERM, why)
        if time.monotonic() > self.kill_at:
            for process in crew:
                self._send(process, signal.SIGKILL, f"did not finish within {self.drain_timeout:g} s")
        if time.monotonic() > self.give_up_at:
            pids = " ".join(str(process.pid) for process in crew)
            raise Refused(EX_CANTCREAT, f"pids {pids} don't die of SIGKILL; look at them: ps -o pid,stat,wchan {pids}")

    def _send(self, process: Process, number: signal.Signals, why: str) -> None:
        if (process.pid, process.start, number) not in self.sent:
            self.sent.add((process.pid, process.start, number))
            who = f"pid {process.pid} ({process.identity.program}, since {process.since})"
            self.say(f"{who} {why}: {number.name} sent")
            process.send(number)


def clear_pidfile(path: Path, say: listener.Say) -> None:
    """Remove a pidfile that an earlier start left, saying what it held. Only for the holder of the lock.

    Raises Refused when it can't be read or removed.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        path.unlink(missing_ok=True)
        say(f"{path} {_meaning(text)}; removed")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(EX_CONFIG, f"{path}: {error.strerror}; type: rm -f {shlex.quote(str(path))}") from None


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


if __name__ == "__main__":
    main()
