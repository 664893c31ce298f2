"""What a connection of the kit's Redis backend receives, and what it subscribes to."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
from celery import Celery
from celery_ops.worker import large_results
from celery_ops.worker.large_results import LARGE, InPlace, with_notices
from kombu.exceptions import EncodeError
from redis.exceptions import ConnectionError as ConnectionLost


class Connected:
    """A parser on one end of a real socket; the other end sends."""

    def __init__(self, sent: bytes) -> None:
        here, there = socket.socketpair()
        here.settimeout(10)
        self.sender = threading.Thread(target=lambda: (there.sendall(sent), there.close()), daemon=True)
        self.sender.start()
        encoder = SimpleNamespace(decode=lambda value, force=False: value)
        self.parser = InPlace(socket_read_size=65536)
        self.parser.on_connect(SimpleNamespace(_sock=here, socket_timeout=10, encoder=encoder))

    def read(self, in_place: bool) -> object:
        return self.parser.read_response(disable_decoding=in_place)


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


def test_a_large_value_is_received_in_place_and_what_follows_is_read():
    value = bytes(range(256)) * (LARGE // 64)
    connected = Connected(bulk(value) + bulk(b"small") + b"$-1\r\n" + bulk(value) + b":7\r\n")
    first = connected.read(in_place=True)
    assert type(first) is bytearray
    assert first == value
    assert connected.read(in_place=True) == b"small"
    assert connected.read(in_place=True) is None
    # What nobody asked for as bytes of its own is as redis-py has it.
    plain = connected.read(in_place=False)
    assert type(plain) is bytes
    assert plain == value
    assert connected.read(in_place=True) == 7


def test_a_connection_that_ends_within_a_value_is_lost():
    connected = Connected(bulk(bytes(2 * LARGE))[: LARGE + 100])
    with pytest.raises(ConnectionLost):
        connected.read(in_place=True)


def test_subscriptions():
    assert list(with_notices((b"a", "b"))) == [b"a", b"a.notice", b"b", b"b.notice"]
    # redis-py subscribes anew, after it was cut off, to all that it had.
    assert list(with_notices((b"a", b"a.notice"))) == [b"a", b"a.notice"]
    assert not with_notices(())


def test_what_redis_does_not_take_is_refused_by_name(monkeypatch):
    import celery_ops.tasks  # noqa: F401

    app = Celery("shop", set_as_current=False)
    app.conf.update(result_backend="redis://127.0.0.1:1/0")
    monkeypatch.setattr(type(app.backend), "_MAX_STR_VALUE_SIZE", 1000)
    with pytest.raises(EncodeError, match=r"1002 bytes is more than the 1000 that Redis takes"):
        app.backend.encode("x" * 1000)
    assert app.backend.encode("x" * 998)


def test_what_is_no_result_is_stored_as_celery_stores_it():
    """Before 5.7 Celery stores the size of a chord, a number, as it stores a result."""
    stored = []

    class Celerys:
        def _set(self, key, value):
            stored.append((key, value))

    class Backend(large_results.SentOnce, Celerys):
        def __init__(self):
            pass

    Backend()._set(b"chord.s", 4)
    assert stored == [(b"chord.s", 4)]


@pytest.mark.parametrize(("url", "parser"), [("redis://h/0", InPlace), ("redis://h/0?protocol=3", None)])
def test_a_newer_protocol_keeps_the_clients_own_parser(url, parser):
    import celery_ops.tasks  # noqa: F401

    app = Celery("shop", set_as_current=False)
    app.conf.update(result_backend=url)
    assert app.backend.connparams.get("parser_class") is parser
    assert isinstance(app.backend.client, large_results.Client)
