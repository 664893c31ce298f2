"""Read and write the keys of one application in Redis, as they are: DUMP and RESTORE, with the time they have left."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import redis

USER = "celery-ops-backup"
"""A user for the time of one application's backup, which no ACL file names: a restart of Redis forgets it."""
RIGHTS = "+ping +hello +auth +scan +dump +pttl +restore +dbsize"
TIMEOUT = 60.0
PAGE = 500


class Client:
    """A connection to Redis that takes what is not text, unlike redis-cli."""

    def __init__(self, address: redis.Address) -> None:
        plain = socket.create_connection((address.host, address.port), TIMEOUT)
        if address.ca:
            context = ssl.create_default_context(cafile=address.ca)
            context.check_hostname = False  # it is this very host
            if shown := redis.certificate_beside(address.ca):
                context.load_cert_chain(*shown[1::2])
            plain = context.wrap_socket(plain)
        self.socket, self.file = plain, plain.makefile("rb")

    def ask(self, *words: str | bytes | int) -> Any:
        """Return the answer to a command. Raises OperatorError with Redis' words."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        text = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n%b" % (len(parts), text))
        return self._answer()

    def _answer(self) -> Any:
        line = self.file.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise OperatorError(f"Redis: {rest.decode(errors='replace')}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind != b"+":
            raise OperatorError("Redis has closed the connection")
        return rest.decode()

    def close(self) -> None:
        """Close the connection."""
        self.file.close()
        self.socket.close()


@contextmanager
def opened(app: str) -> Iterator[Client]:
    """Give a connection to the application's database, by a user for this alone."""
    address = redis.listens_at()
    if address is None:
        raise OperatorError("the kit has not configured Redis on this host")
    user = f"{USER}-{app}"  # another application's backup may run at the same time
    database, password = redis.database_of(redis.acl_users().get(app, "")), secrets.token_hex(32)
    admin = Client(address)
    try:
        admin.ask("AUTH", redis.ADMIN, redis.admin_password())
        digest = hashlib.sha256(password.encode()).hexdigest()
        rights = f"reset on #{digest} ~* resetchannels -@all {RIGHTS} +select|{database}".split()
        admin.ask("ACL", "SETUSER", user, *rights)
        try:
            client = Client(address)
            client.ask("AUTH", user, password)
            client.ask("SELECT", database)
            yield client
            client.close()
        finally:
            admin.ask("ACL", "DELUSER", user)
    finally:
        admin.close()


def is_primary() -> bool:
    """Tell whether this host's Redis is the one that is written to."""
    address = redis.listens_at()
    return address is not None and "role:master" in redis.ask(
        address, "INFO replication", user=redis.ADMIN, password=redis.admin_password()
    )


def dumped(app: str) -> Iterator[str]:
    """Yield the application's keys, a line each: name, milliseconds left (0 for ever), value."""
    with opened(app) as client:
        cursor: Any = b"0"
        while True:
            cursor, keys = client.ask("SCAN", cursor, "COUNT", PAGE)
            for key in keys:
                value, left = client.ask("DUMP", key), client.ask("PTTL", key)
                if value is not None and left != -2:  # it may have ended meanwhile
                    yield json.dumps([*(base64.b64encode(one).decode() for one in (key, value)), max(0, left)])
            if cursor == b"0":
                return


def restored(app: str, lines: Iterable[str]) -> tuple[int, int]:
    """Write keys back; return how many, and how many were there already and stay."""
    done = there = 0
    with opened(app) as client:
        for line in lines:
            key, value, left = json.loads(line)
            try:
                client.ask("RESTORE", base64.b64decode(key), left, base64.b64decode(value))
                done += 1
            except OperatorError as error:
                if "BUSYKEY" not in str(error):
                    raise
                there += 1
    return done, there
