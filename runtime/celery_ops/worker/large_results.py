"""Large results travel once: the worker stores them and publishes a notice, and who waits fetches them.

Celery's Redis backend sends a result twice, to be stored and to whoever waits, and redis-py's parser copies what it
receives four times. Here a waiting client subscribes to a second channel, for notices. Where somebody listens who
does not know of notices (Celery's own backend, an older release, a subscription to a pattern), the worker publishes
the whole value as well, so that both sides may be the older one. Small results are as Celery sends them.
"""

import contextlib
import socket
from collections.abc import Iterable
from typing import Any

from celery.states import FAILURE, SUCCESS
from kombu.exceptions import EncodeError
from redis import StrictRedis
from redis.client import PubSub
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import NoPermissionError

from celery_ops import arrays, shared_memory

try:
    from redis._parsers.resp2 import _RESP2Parser as Parser
    from redis._parsers.socket import SocketBuffer
except ImportError:  # redis-py 4
    from redis.connection import PythonParser as Parser
    from redis.connection import SocketBuffer

LARGE = 64 * 1024
"""Bytes from which a second round trip is faster than sending the value twice."""
REFERENCE = "celery_ops_memory"
"""Where a stored result names the file that it is in (see `shared_memory`)."""
NOTICE = b".notice"
"""What follows the name of a result's key in the name of the channel of its notices."""


class SentOnce:
    """A Redis backend that stores a large result, and publishes that it is there."""

    may_count = True
    """Whether this user may ask Redis how many wait for a result."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if str(self.connparams.get("protocol", 2)) == "2":
            self.connparams.setdefault("parser_class", InPlace)

    def _get_client(self) -> type[StrictRedis]:
        return Client

    def encode(self, data: Any) -> bytes | str:
        """Return `data` as Celery does; raise EncodeError for more than Redis takes."""
        payload = super().encode(data)
        if len(payload) > self._MAX_STR_VALUE_SIZE:
            raise EncodeError(
                f"a result of {len(payload)} bytes is more than the {self._MAX_STR_VALUE_SIZE} that Redis takes; "
                "write it to a file and return the path"
            )
        return payload

    def _get_result_meta(self, result: Any, state: str, traceback: Any, request: Any, **options: Any) -> dict[str, Any]:
        meta = super()._get_result_meta(result, state, traceback, request, **options)
        if state == SUCCESS and (reference := self._leave_where_sent(result, request)):
            # Who knows nothing of references sees a failure that says what it is.
            name, host = reference["name"], socket.gethostname()
            why = f"the result is in the memory of the host {host} ({name}), for who asked for it there"
            failure = self.prepare_exception(shared_memory.ResultElsewhere(why))
            meta |= {"status": FAILURE, "result": failure, REFERENCE: reference}
        return meta

    def _leave_where_sent(self, result: Any, request: Any) -> dict[str, Any] | None:
        """Leave a result in the memory of this host, if it is where the task was sent; return the reference."""
        wanted = getattr(request, shared_memory.HEADER, None)
        if not wanted or not self.expires or self.serializer != arrays.NAME:
            return None
        if wanted != shared_memory.identity(shared_memory.directory()):
            return None
        return shared_memory.write(result, self.expires)

    def decode(self, payload: Any) -> Any:
        """Return what was stored; where that is a reference that can be followed, what it leads to."""
        data = super().decode(payload)
        if isinstance(data, dict) and (reference := data.pop(REFERENCE, None)):
            with contextlib.suppress(shared_memory.ResultElsewhere):
                data |= {"result": shared_memory.read(reference), "status": SUCCESS}
        return data

    def _forget(self, task_id: str) -> None:
        if shared_memory.directory().is_dir():
            value = self.client.getrange(self.get_key_for_task(task_id), 0, LARGE)
            data = super().decode(value) if value and len(value) < LARGE else None
            if isinstance(data, dict) and REFERENCE in data:
                shared_memory.remove(data[REFERENCE])
        super()._forget(task_id)

    def get(self, key: bytes) -> bytes | bytearray | None:
        """Return what is stored under a key, or None; a large value as a bytearray that is the caller's own."""
        return self.client.fetch(key)

    def _set(self, key: bytes, value: bytes | str | int, expires: float | None = None) -> None:
        # Celery before 5.7 stores the size of a chord in this way, a number.
        large = isinstance(value, bytes | str) and len(value) >= LARGE
        if not large or not self._store_and_tell(key, value, self.expires if expires is None else expires):
            # Celery before 5.7 takes no third one.
            super()._set(key, value, *(() if expires is None else (expires,)))

    def _store_and_tell(self, key: bytes, value: bytes | str, expires: float | None) -> bool:
        """Store a large value and tell who waits for it; return whether this user may do so."""
        if not self.may_count:
            return False
        with self.client.pipeline() as pipe:
            pipe.set(key, value, ex=expires or None)
            pipe.publish(channel := notice_of(key), len(value))
            pipe.pubsub_numsub(key, channel)
            try:
                _, told, counts = pipe.execute()
            except NoPermissionError:
                self.may_count = False  # in somebody else's Redis
                return False
        (_, waiting), (_, knowing) = counts
        # Told are subscribers of patterns, too.
        if waiting > knowing or told > knowing:
            self.client.publish(key, value)
        return True


class Client(StrictRedis):
    """A client that fetches large values in place, and whose subscriptions hear notices."""

    def pubsub(self, **options: Any) -> PubSub:
        """Return a subscription to results."""
        subscription = Subscription(self.connection_pool, **options)
        subscription.fetch = self.fetch
        return subscription

    def fetch(self, key: bytes | str) -> bytes | bytearray | None:
        """Return what is stored under `key`, or None. A large value is received into a bytearray of its size."""
        return self.execute_command("GET", key, NEVER_DECODE=True)


class Subscription(PubSub):
    """A subscription to the results of tasks: with the channel of a key, that of its notices.

    A notice becomes the message that Celery's backend would have published.
    """

    def subscribe(self, *keys: bytes | str, **handlers: Any) -> Any:
        """Subscribe to these keys and their notices."""
        return super().subscribe(*with_notices(keys), **handlers)

    def unsubscribe(self, *keys: bytes | str) -> Any:
        """Leave these keys and their notices; all, where none is named."""
        return super().unsubscribe(*with_notices(keys))

    def get_message(self, *arguments: Any, **options: Any) -> dict[str, Any] | None:
        """Return the next message, or None; the value of a notice is fetched, and may be gone by now."""
        message = super().get_message(*arguments, **options)
        if not message or message["type"] != "message":
            return message
        channel = as_bytes(message["channel"])
        if not channel.endswith(NOTICE):
            return message
        key = channel.removesuffix(NOTICE)
        value = self.fetch(key)
        return None if value is None else {**message, "channel": key, "data": value}


def with_notices(keys: tuple[bytes | str, ...]) -> Iterable[bytes]:
    """Return each channel once, and that of its notices; redis-py subscribes anew to those it had, notices included."""
    return dict.fromkeys(
        channel for key in map(as_bytes, keys) for channel in (key, key if key.endswith(NOTICE) else notice_of(key))
    )


def notice_of(key: bytes | str) -> bytes:
    """Return the channel of a key's notices. It begins with the key, so that what may be subscribed to still holds."""
    return as_bytes(key) + NOTICE


def as_bytes(text: bytes | str) -> bytes:
    """Return a channel's name as bytes."""
    return text.encode() if isinstance(text, str) else text


class InPlace(Parser):
    """redis-py's parser, which receives a large value that is not to be decoded straight into a bytearray."""

    def on_connect(self, connection: Any) -> None:
        """Take over a connection."""
        super().on_connect(connection)
        self._buffer = Buffer(self._sock, self.socket_read_size, connection.socket_timeout)

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        """Return the next answer."""
        if self._buffer:
            self._buffer.in_place = disable_decoding
        return super().read_response(disable_decoding=disable_decoding, **options)


class Buffer(SocketBuffer):
    """What has been received and not been read."""

    in_place = False

    def read(self, length: int, **options: Any) -> bytes | bytearray:
        """Return a value of `length` bytes; what is wrong with the socket is the connection's to handle."""
        if not self.in_place or length < LARGE:
            return super().read(length, **options)
        value = bytearray(length + 2)  # with the end of line
        with memoryview(value) as view:
            done = self._buffer.readinto(view)
            while done < len(view):
                received = self._sock.recv_into(view[done:])
                if not received:
                    raise ConnectionLost("Connection closed by server.")
                done += received
        del value[length:]
        return value
