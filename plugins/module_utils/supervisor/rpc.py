"""Talk to a running supervisord: a thin, typed client over its XML-RPC socket."""

from __future__ import annotations

import configparser
import http.client
import os
import socket
import time
import xmlrpc.client
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.ini import option_in, parsed_file

UP = frozenset({"STARTING", "RUNNING", "BACKOFF"})
"""States in which supervisord runs the program, or will try to again by itself."""

DOWN = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})
"""States from which a group can be removed. What is in neither set is STOPPING."""

RPC_TIMEOUT = 30.0
"""Seconds one call may take; every call we make returns at once unless supervisord hangs."""


class Fault:
    """The fault codes of supervisord's RPC interface that we handle."""

    SHUTDOWN_STATE = 6
    BAD_NAME = 10
    NO_FILE = 20
    NOT_EXECUTABLE = 21
    ALREADY_STARTED = 60
    NOT_RUNNING = 70
    ALREADY_ADDED = 90
    STILL_RUNNING = 91
    CANT_REREAD = 92


class NoSupervisord(OperatorError):
    """Nothing answers on supervisord's socket."""


class ShuttingDown(OperatorError):
    """supervisord stops its programs and ends."""


@dataclass(frozen=True)
class ProcessInfo:
    """What supervisord says of one program.

    `uptime` is in whole seconds, `pid` is 0 when it has none, `ended` the Unix time at which its last process ended.
    """

    name: str
    state: str
    pid: int
    uptime: int
    error: str
    exitstatus: int
    ended: int = 0

    @property
    def up(self) -> bool:
        """Whether it runs or supervisord keeps trying."""
        return self.state in UP

    @property
    def down(self) -> bool:
        """Whether no process is left."""
        return self.state in DOWN


class Reread(NamedTuple):
    """Groups by how the files differ from what supervisord has loaded."""

    added: frozenset[str]
    changed: frozenset[str]
    removed: frozenset[str]


@dataclass(frozen=True)
class Endpoint:
    """Where supervisord listens, as its own clients find it."""

    url: str
    username: str | None = None
    password: str | None = None

    @classmethod
    def from_conf(cls, conf: Path) -> Endpoint:
        """Read the endpoint from a supervisord.conf.

        Raises OperatorError where the file is missing, can't be read or names no socket.
        """
        try:
            parser = parsed_file(conf)
        except FileNotFoundError:
            raise OperatorError(
                f"{conf} is missing. Install supervisor (apt-get install supervisor), or point "
                f"`supervisord_conf` at the file in use."
            ) from None
        except (OSError, configparser.Error) as error:
            raise OperatorError(f"{conf} can't be read: {error}") from None

        option = partial(option_in, parser, conf)
        file = option("unix_http_server", "file")
        url = option("supervisorctl", "serverurl") or (file and f"unix://{file}")
        if not url:
            raise OperatorError(
                f"{conf} has neither `serverurl` in [supervisorctl] nor `file` in [unix_http_server]: "
                f"supervisord can't be reached. Debian's own file has both."
            )
        return cls(
            url,
            option("supervisorctl", "username") or option("unix_http_server", "username"),
            option("supervisorctl", "password") or option("unix_http_server", "password"),
        )


class Supervisord:
    """One supervisord. Nothing here touches a group that isn't named by the caller."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._transport: Any = None

    def await_answer(self, seconds: float) -> None:
        """Wait until supervisord answers and runs. Raises OperatorError when it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                state = self._call("getState")["statename"]
                if state == "RUNNING":
                    return
                refusal = OperatorError(
                    f"supervisord at {self.endpoint.url} is in state {state}. Wait until it runs again: "
                    f"supervisorctl pid"
                )
            except (NoSupervisord, ShuttingDown) as error:
                refusal = error
            if time.monotonic() >= deadline:
                raise refusal
            time.sleep(0.2)

    def environment(self) -> dict[str, str]:
        """Return supervisord's own environment, to which %(ENV_x)s refers; empty if unreadable."""
        with suppress(OSError, OperatorError):
            raw = Path(f"/proc/{self._call('getPID')}/environ").read_bytes()
            pairs = (os.fsdecode(item).partition("=") for item in raw.split(b"\0") if b"=" in item)
            return {key: value for key, _, value in pairs}
        return {}

    def processes(self) -> dict[str, ProcessInfo]:
        """Return all programs by name; members of a group as `group:program`, as in supervisorctl."""
        found = {}
        for info in self._call("getAllProcessInfo"):
            name = info["name"] if info["group"] == info["name"] else f"{info['group']}:{info['name']}"
            found[name] = ProcessInfo(
                name,
                info["statename"],
                info["pid"],
                max(0, info["now"] - info["start"]),
                info["spawnerr"],
                info["exitstatus"],
                info["stop"],
            )
        return found

    def reread(self) -> Reread:
        """Make supervisord read its files; this starts and stops nothing. Raises OperatorError on a bad file."""
        try:
            [[added, changed, removed]] = self._call("reloadConfig")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Fault.CANT_REREAD:
                raise
            raise OperatorError(
                f"supervisord can't read its configuration: {fault.faultString}. Correct that file, "
                f"check with: supervisorctl reread"
            ) from None
        return Reread(frozenset(added), frozenset(changed), frozenset(removed))

    def add(self, name: str) -> None:
        """Load one group from the files read last; it may be loaded already."""
        self._call("addProcessGroup", name, tolerate=Fault.ALREADY_ADDED)

    def start(self, name: str) -> None:
        """Start one program without waiting; it may run already. Raises Fault if it can't be executed."""
        self._call("startProcess", name, False, tolerate=Fault.ALREADY_STARTED)

    def stop(self, process: ProcessInfo) -> None:
        """Send one program its stop signal without waiting; it may be stopping or stopped already."""
        self._await_exec(process.pid)
        self._call("stopProcess", process.name, False, tolerate=Fault.NOT_RUNNING)

    def _await_exec(self, pid: int) -> None:
        """Wait until a child has become its program; before, supervisord's handlers swallow its signals."""
        deadline = time.monotonic() + 1
        with suppress(OSError):
            own = Path(f"/proc/{self._call('getPID')}/cmdline").read_bytes()
            while Path(f"/proc/{pid}/cmdline").read_bytes() == own and time.monotonic() < deadline:
                time.sleep(0.01)

    def remove(self, name: str) -> None:
        """Unload one stopped group; it may be unknown."""
        self._call("removeProcessGroup", name, tolerate=Fault.BAD_NAME)

    def _call(self, method: str, *arguments: object, tolerate: int | None = None) -> Any:
        transport = self._connected_transport()
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == tolerate:
                return None
            if fault.faultCode == Fault.SHUTDOWN_STATE:
                raise ShuttingDown(
                    f"supervisord at {self.endpoint.url} is shutting down. Run this again once it is "
                    f"back: supervisorctl pid"
                ) from None
            raise
        except xmlrpc.client.ProtocolError as error:
            raise OperatorError(
                f"supervisord at {self.endpoint.url} refused {method}: {error.errcode} {error.errmsg}. "
                f"A 401 means that username or password in [supervisorctl] is wrong."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self._transport = None
            raise NoSupervisord(
                f"supervisord does not answer at {self.endpoint.url} ({error or type(error).__name__}); "
                f"start it: systemctl start supervisor (without systemd: service supervisor start)"
            ) from None
        except BaseException:
            self._transport = None  # interrupted within an answer: this connection is of no more use
            raise

    def _connected_transport(self) -> Any:
        if self._transport is None:
            from supervisor.xmlrpc import SupervisorTransport  # from the package on the host

            socket.setdefaulttimeout(RPC_TIMEOUT)  # the transport has no timeout of its own
            self._transport = SupervisorTransport(self.endpoint.username, self.endpoint.password, self.endpoint.url)
        return self._transport
