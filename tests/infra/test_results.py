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


HERE = """
import json, time
from pathlib import Path
import numpy
import celery_ops
from celery_ops import shared_memory
from petct.celery import app

app.conf.task_serializer
path = Path("/srv/petct/shared/data/here.mpv")
path.write_bytes(numpy.arange(10**5, dtype="<i2").tobytes())
place, arguments = shared_memory.directory(), (path.name, [10, 10, 1000], "<i2")


def ask(headers):
    result = app.send_task("loadArray", arguments, headers=headers)
    assert numpy.array_equal(result.get(timeout=30).ravel(), numpy.arange(10**5, dtype="<i2"))
    return result, app.backend.client.strlen(app.backend.get_key_for_task(result.id))


before = set(place.glob("*"))
(here, stored), (elsewhere, whole) = ask(celery_ops.read_here()), ask({shared_memory.HEADER: "another host"})
[file] = set(place.glob("*")) - before
here.forget()
left = file.exists()
orphan, (gone, _) = place / f"{int(time.time()) + 1}-0123456789abcdef", ask(celery_ops.read_here())
orphan.write_bytes(b"of a worker that was killed")
for other in set(place.glob("*")) - before - {orphan}:
    other.unlink()
failure = app.AsyncResult(gone.id).get(propagate=False)
deadline = time.monotonic() + 40
while orphan.exists() and time.monotonic() < deadline:
    time.sleep(0.2)
for result in (elsewhere, gone):
    result.forget()
path.unlink()
print(json.dumps([stored, whole, left, type(failure).__name__, str(failure), orphan.exists()]))
"""


def test_a_result_stays_in_memory_where_it_is_read_on_the_same_host(host):
    """And nothing stays there that nobody fetched: the watchdog removes it, though no worker writes."""
    stored, whole, left, failure, why, orphan = json.loads(
        host.output(host.in_release("python -"), stdin=HERE).splitlines()[-1]
    )
    assert stored < 2000 < 200_000 < whole
    assert not left
    assert failure == "ResultElsewhere"
    assert "in the memory of the host" in why
    assert not orphan
