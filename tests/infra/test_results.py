"""The result store keeps results over a restart of Redis; a large result travels once, also to readers of before."""

from __future__ import annotations

import json

import pytest

ASK = "python -c 'import os, redis; store = redis.Redis.from_url(os.environ[\"CELERY_RESULT_BACKEND\"]); {}'"
LARGE = '''
import json, time, uuid
import numpy
from celery.backends.redis import RedisBackend
from petct.celery import app

app.conf.task_serializer  # reads the settings, and with them the kit's backend
ours, celerys = app.backend, RedisBackend(app=app, url=app.conf.result_backend)
value = numpy.arange(10**6, dtype=">f4").reshape(100, 100, 100, order="F")


def sent():
    return ours.client.info("stats")["total_net_output_bytes"]


def trip(writer, reader):
    """Return by how many times its size a result is sent by Redis until it is published to who waits for it."""
    key, seen, consumer = uuid.uuid4().hex, [], reader.result_consumer
    consumer.on_state_change = lambda meta, message: seen.append(meta["result"])
    consumer.consume_from(key)
    before, deadline = sent(), time.monotonic() + 20
    writer.store_result(key, value, "SUCCESS")
    while not seen and time.monotonic() < deadline:
        consumer.drain_events(timeout=1)
    [found] = seen
    assert found.dtype.str == ">f4" and found.flags.f_contiguous and found.flags.writeable
    assert numpy.array_equal(found, value)
    reader.forget(key)
    return (sent() - before) / value.nbytes


print(json.dumps([type(ours).__module__, ours.may_count, trip(ours, ours), trip(ours, celerys), trip(celerys, ours)]))
'''


def test_what_was_stored_in_a_transaction_survives_a_restart_of_redis(host):
    """As the parts of a chord are; and on a primary with replicas, every result."""
    if not host.has_systemd:
        pytest.skip("restarted by systemd")
    write = 'store.pipeline().set("kept-a", 1, ex=300).set("kept-b", 2, ex=300).execute()'
    host.output(host.in_release(ASK.format(write)))
    host.output("systemctl restart redis-server")
    read = 'store.ping(); print(store.mget("kept-a", "kept-b"))'
    assert host.output(host.in_release(ASK.format(read))).splitlines()[-1] == "[b'1', b'2']"


def test_a_large_result_reaches_new_and_old_readers(host):
    """While releases change, either side may be the one that does not know of notices."""
    backend, may_count, *sent = json.loads(host.output(host.in_release("python -"), stdin=LARGE).splitlines()[-1])
    assert (backend, may_count) == ("celery_ops.worker.results", True)
    assert all(0.9 < times < 1.5 for times in sent), sent
