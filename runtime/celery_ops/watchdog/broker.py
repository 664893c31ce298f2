"""Asks the broker how many messages wait in the application's queues, and how many consumers those have.

As the application's own user, by passive declares: no message is touched. It has a thread and a connection of its own,
so that a broker that hangs holds nothing up. Without an AMQP URL in the environment there is nothing to ask.
"""

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from celery_ops.layout import TLS_CLIENT

if TYPE_CHECKING:
    import amqp

TIMEOUT, HEARTBEAT = 5.0, 60
"""Seconds that the broker has for an answer, and between heartbeats."""
PORTS = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}


@dataclass(frozen=True)
class Answer:
    """What the broker said, and when."""

    at: float = 0.0
    """Unix time; 0 for never."""
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    """By queue's label `ready` and `consumers`; without queues that are not there."""
    certificate: float = 0.0
    """When the broker's certificate ends, as Unix time; 0 without TLS."""
    error: str = ""
    """Why there was no answer since."""


class Broker:
    """A connection that is asked now and then; `answer` is what came of it last."""

    def __init__(self, app: str, urls: str, name: str = "", ca: str = "", client: str = "") -> None:
        self.app, self.name, self.ca, self.client = app, name, ca, client
        self.urls = [url for url in urls.split(";") if urlsplit(url).scheme in PORTS]
        self.answer = Answer()
        self.wanted: dict[str, str] = {}
        self.due = threading.Event()
        self.connection: amqp.Connection | None = None
        self.thread: threading.Thread | None = None

    @classmethod
    def of_environment(cls, app: str) -> "Broker":
        """Return the broker that the application's environment names."""
        keys = ("CELERY_BROKER_URL", "CELERY_OPS_TLS_NAME", "CELERY_OPS_TLS_CA", TLS_CLIENT)
        return cls(app, *(os.environ.get(key) or "" for key in keys))

    def ask(self, queues: Mapping[str, str]) -> None:
        """Ask for these soon, in the thread; return at once. Each has the label under which its counts are added."""
        self.wanted = dict(queues)
        if not self.urls:
            return
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True, name="broker")
            self.thread.start()
        self.due.set()

    def _run(self) -> None:
        while self.due.wait():
            self.due.clear()
            self.look()

    def look(self) -> None:
        """Ask once, over the connection there is or another one."""
        had_one = self.connection is not None
        try:
            self._look()
        except Exception as error:
            self._close()
            # One that was idle may have been cut; a second try tells.
            if had_one:
                self.look()
            else:
                self.answer = Answer(
                    self.answer.at, {}, self.answer.certificate, f"{type(error).__name__}: {error}"[:200]
                )

    def _look(self) -> None:
        from amqp.exceptions import ChannelError

        if self.connection is None:
            self.connection = self._connect()
        connection, found = self.connection, {}
        connection.heartbeat_tick()
        channel = connection.channel()
        for queue, label in sorted(self.wanted.items()):
            try:
                known = channel.queue_declare(queue, passive=True)
            except ChannelError:  # it is not there, or another connection's alone
                if not channel.is_open:  # py-amqp opens the one that the broker has closed again
                    channel = connection.channel()
            else:
                of = found.setdefault(label, {"ready": 0, "consumers": 0})
                of["ready"] += known.message_count
                of["consumers"] += known.consumer_count
        channel.close()
        self.answer = Answer(time.time(), found, _end(connection))

    def _connect(self) -> "amqp.Connection":
        import amqp

        last: Exception = OSError("no URL")
        for options in self._options():
            try:
                connection = amqp.Connection(**options)
                connection.connect()
            except Exception as error:
                last = error
            else:
                return connection
        raise last

    def _options(self) -> Iterator[dict[str, Any]]:
        for url in self.urls:
            parts = urlsplit(url)
            host, port = parts.hostname or "localhost", parts.port or PORTS[parts.scheme]
            tls: Any = False
            if parts.scheme == "amqps":
                tls = {"server_hostname": self.name or host, "cert_reqs": ssl.CERT_REQUIRED}
                if ca := self.ca or os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile:
                    tls["ca_certs"] = ca
                if self.client:
                    tls["certfile"] = self.client
            yield {
                "host": f"{f'[{host}]' if ':' in host else host}:{port}",
                "userid": unquote(parts.username or "guest"),
                "password": unquote(parts.password or "guest"),
                "virtual_host": unquote(parts.path[1:]) or "/",
                "ssl": tls,
                "heartbeat": HEARTBEAT,
                **dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), TIMEOUT),
                "client_properties": {"connection_name": f"{self.app}-watchdog"},
            }

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()  # no goodbye, which could hang


def _end(connection: "amqp.Connection") -> float:
    """Return when the certificate of the broker ends, 0 without TLS."""
    certificate = getattr(connection.transport.sock, "getpeercert", dict)() or {}
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if "notAfter" in certificate else 0.0
