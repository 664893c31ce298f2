"""The listener: holds the web server's listening socket; replacing the web server refuses no connection.

It binds once and hands the socket (SCM_RIGHTS) to whoever of the same user, or root, connects to its unix
socket. ``celery-ops-guard --listen-from`` does, and passes it on as fd 3. While no web server accepts,
connections wait in the backlog.

A listener that Supervisor starts takes the socket over from the one that it finds, so that neither a new generation of
the listener nor a new supervisord refuses a connection. The one before stays until Supervisor stops it, and serves
again if the new one ends first. When the supervisor dies, the listener stays for LINGER seconds for its successor.

Exit status: 0 told to stop or succeeded, 73 runs already, 75 try again, 78 configuration (2 command line).
"""

import argparse
import contextlib
import json
import os
import select
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from celery_ops.launch.process import (
    EX_CANTCREAT,
    EX_CONFIG,
    EX_TEMPFAIL,
    ExitError,
    become,
    end_with,
    make_directory,
    remove_socket,
    report,
    user_id,
)

BACKLOG = 2048
LINGER = 30.0
LOOK = 0.5
"""Seconds between two looks at what is paused."""
CLIENTS = 64
"""Clients that are answered at a time while the web is closed; others wait in the backlog."""
RETRY_AFTER = 60
"""Seconds after which a client may ask again where the end of the maintenance is not known."""
UNAVAILABLE = """HTTP/1.1 503 Service Unavailable\r
Retry-After: {}\r
Content-Type: text/html; charset=utf-8\r
Cache-Control: no-store\r
X-Celery-Ops: maintenance\r
Connection: close\r
\r
<!doctype html><meta name="viewport" content="width=device-width"><title>Maintenance</title>
<h1>Maintenance</h1><p>This service is being maintained and will be back soon.</p>
"""
PROGRAM = "SUPERVISOR_PROCESS_NAME"
"""Supervisor puts it into the environment of what it starts."""

Say = Callable[[str], None]

_BYE = b"bye"
_UCRED = struct.Struct("3i")


def receive(path: Path, seconds: float, pause: Callable[[], None]) -> int:
    """Return the listening socket's descriptor, got from the listener at `path`.

    Calls `pause` between attempts. Raises ExitError (75) when there is no listener within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            descriptor, _, connection = _ask(path)
        except OSError as error:
            if time.monotonic() > deadline:
                raise ExitError(
                    EX_TEMPFAIL,
                    f"no listener at {path} within {seconds:g} s ({error.strerror or error}); "
                    "type: supervisorctl status",
                ) from None
            pause()
        else:
            connection.close()
            return descriptor


def _ask(path: Path, user: int | None = None) -> tuple[int, dict[str, object], socket.socket]:
    """Return the descriptor, what its holder says of itself, and the connection. Raises OSError.

    The holder has to run as this user or root; `user` is the one that root is about to become.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(2)
        connection.connect(str(path))
        if _peer(connection)[1] not in (0, os.geteuid(), user):
            raise PermissionError(0, f"{path} is served by another user")
        message, descriptors, _, _ = socket.recv_fds(connection, 1024, 1)
        if len(descriptors) != 1:
            raise ConnectionError(f"{path} handed out nothing")
        return descriptors[0], json.loads(message), connection
    except BaseException:
        connection.close()
        raise


def _answers(path: Path) -> bool:
    """Whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError):
        connection.connect(str(path))
        return True
    return False


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the other end, as the kernel knows them."""
    return _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))


def main(argv: list[str] | None = None) -> NoReturn:
    """Hold a listening socket and hand it out."""
    parent = os.getppid()
    parser = argparse.ArgumentParser(
        prog="celery-ops-listener", description="Hold a listening socket and hand it to web servers."
    )
    parser.add_argument("--bind", required=True, metavar="HOST:PORT")
    parser.add_argument("--socket", required=True, type=Path, help="unix socket at which to hand it out")
    parser.add_argument("--user", help="run as this user (started as root; binding is done as root)")
    parser.add_argument("--pause", type=Path, metavar="FILE", help="what is paused: while the web is, answer 503")
    options = parser.parse_args(argv)
    try:
        make_directory(options.socket.parent, options.user)
        listening, predecessor = _take_over(options.bind, options.socket, user_id(options.user))
        become(options.user)
        end_with(parent)
        if options.pause:
            threading.Thread(target=Closed(listening, options.pause).run, daemon=True).start()
        Holder(listening, options.socket, parent).serve(predecessor)
    except ExitError as error:
        say(str(error))
        sys.exit(error.code)


def say(message: str) -> None:
    """Tell the log."""
    report("celery-ops-listener", message)


def _take_over(bind: str, path: Path, user: int | None) -> tuple[socket.socket, socket.socket | None]:
    """Return the listening socket, and the connection to the listener it came from, if there is one.

    Raises ExitError (73) when this was started by hand and a listener with a living supervisor is there.
    """
    wanted = _address(bind)
    try:
        descriptor, holder, connection = _ask(path, user)
    except OSError:
        return _listen(bind, *wanted), None
    listening = socket.socket(fileno=descriptor)
    if not holder["orphaned"] and PROGRAM not in os.environ:
        raise ExitError(EX_CANTCREAT, f"a listener runs already: pid {holder['pid']}, at {path}; left alone")
    if (listening.family, listening.getsockname()) == wanted:
        why = ", which has lost its supervisor" if holder["orphaned"] else ""
        say(f"took {bind} over from pid {holder['pid']}{why}")
        return listening, connection
    listening.close()
    return _listen(bind, *wanted), connection


def _address(bind: str) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    host, _, port = bind.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (ValueError, OverflowError, socket.gaierror) as error:
        raise ExitError(EX_CONFIG, f"--bind {bind}: {error}; it has to look like 127.0.0.1:8000") from None
    return found[0][0], found[0][4]


def _listen(bind: str, family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A restarted listener binds beside the socket that a running web server still has from the one before.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind(address)
    except OSError as error:
        port = shlex.quote(f"sport = :{address[1]}")
        raise ExitError(EX_CONFIG, f"--bind {bind}: {error.strerror}; see who has it: ss -ltnp {port}") from None
    listening.listen(BACKLOG)
    return listening


class Closed:
    """Answers 503 in the place of the web server while the file says that the web is closed for maintenance."""

    def __init__(self, listening: socket.socket, path: Path) -> None:
        self.listening, self.path = listening, path
        self.slots = threading.BoundedSemaphore(CLIENTS)

    def run(self) -> NoReturn:
        """Look at the file, and take connections while the web is closed."""
        poll, was_closed = select.poll(), False
        poll.register(self.listening, select.POLLIN)
        while True:
            until = closed_until(self.path)
            if (until is not None) != was_closed:
                was_closed = until is not None
                say("closed for maintenance: answers 503" if was_closed else "open again")
            if until is None:
                time.sleep(LOOK)
            # Not by a timeout of the socket's own, which the web server would inherit.
            elif poll.poll(LOOK * 1000):
                self.slots.acquire()
                try:
                    connection = self.listening.accept()[0]
                except OSError:  # a web server that is finishing took it, and has made the socket non-blocking
                    self.slots.release()
                    continue
                threading.Thread(target=self.answer, args=(connection, until), daemon=True).start()

    def answer(self, connection: socket.socket, until: float) -> None:
        """Read a request's beginning, answer it, and wait for the client to be done."""
        seconds = max(1, round(until - time.time())) if until else RETRY_AFTER
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.recv(65536)
                connection.sendall(UNAVAILABLE.format(seconds).encode())
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)
        finally:
            self.slots.release()


def closed_until(path: Path) -> float | None:
    """Return when the web is open again, 0 where that is not known; None where it is not closed."""
    try:
        found = [one for one in json.loads(path.read_text(encoding="utf-8")) if one["what"] == "web"]
        ends = [one.get("until") for one in found if one.get("until") is None or one["until"] > time.time()]
        return max((end or 0.0 for end in ends), default=None)
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Holder:
    """Serves the listening socket at a unix socket."""

    def __init__(self, listening: socket.socket, path: Path, parent: int) -> None:
        self.listening, self.path, self.parent = listening, path, parent
        self.before = path.with_name(f"{path.name}.before")
        """Where the unix socket of the listener before this one is kept."""
        self.leave_at: float | None = None
        self.inode = 0
        """Of the unix socket, so that a successor's is left alone."""

    def serve(self, predecessor: socket.socket | None) -> NoReturn:
        """Hand the socket out until told to stop; tell `predecessor` to leave, if it is orphaned, once this one serves.

        One that is not serves again should this one end first: its unix socket is kept beside.
        """
        signal.signal(signal.SIGTERM, self._stop)
        try:
            server = self._open()
            if predecessor is not None:
                with contextlib.suppress(OSError):
                    predecessor.sendall(_BYE)
                predecessor.close()
            say(f"holds {self.listening.getsockname()[:2]}, hands it out at {self.path}")
            while self.leave_at is None or time.monotonic() < self.leave_at:
                with contextlib.suppress(TimeoutError):
                    self._hand_out(server.accept()[0])
            sys.exit(0)
        finally:
            self._close()

    def _open(self) -> socket.socket:
        """Return the serving socket; renamed into place, so that at no time nobody serves at `path`."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            remove_socket(fresh)
            server.bind(str(fresh))
            fresh.chmod(0o600)
            server.listen(16)
            self.inode = fresh.stat().st_ino
            remove_socket(self.before)
            with contextlib.suppress(OSError):
                self.before.hardlink_to(self.path)
            fresh.rename(self.path)
        except OSError as error:
            raise ExitError(
                EX_CONFIG, f"--socket {self.path}: {error.strerror}; does its directory belong to this user?"
            ) from None
        server.settimeout(1)
        return server

    def _close(self) -> None:
        """Leave no socket file behind; the listener before serves again, if it still runs."""
        for path in (self.path, self.before):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino != self.inode:
                    continue
                if path == self.path and _answers(self.before):
                    self.before.rename(self.path)
                else:
                    path.unlink()

    def _hand_out(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(2)
            pid, uid, _ = _peer(connection)
            if uid not in (0, os.geteuid()):
                say(f"refused pid {pid} of uid {uid}")
                return
            orphaned = os.getppid() != self.parent
            message = json.dumps({"pid": os.getpid(), "orphaned": orphaned}).encode()
            socket.send_fds(connection, [message], [self.listening.fileno()])
            if orphaned and connection.recv(len(_BYE)) == _BYE:
                say("my successor has taken over")
                sys.exit(0)

    def _stop(self, *_: object) -> None:
        if os.getppid() == self.parent:
            sys.exit(0)
        say(f"has lost its supervisor; waits {LINGER:g} s for a successor")
        self.leave_at = time.monotonic() + LINGER


if __name__ == "__main__":
    main()
