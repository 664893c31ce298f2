"""What bench/volumes.py measures, in the current release of petct on a host; prints samples as one line of JSON.

Times are milliseconds, memory is bytes. Each round takes all ways of a part in turns.
`quick` as an argument is what tests/infra/test_ratios.py asks for: the forms of a result, in few rounds.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "petct.settings")
import django  # noqa: E402

django.setup()

import celery_ops  # noqa: E402
import numpy  # noqa: E402
import redis  # noqa: E402
from celery import Celery  # noqa: E402
from celery.backends.redis import RedisBackend  # noqa: E402
from celery.result import AsyncResult  # noqa: E402
from celery_ops import shared_memory  # noqa: E402
from django.conf import settings  # noqa: E402
from petct.celery import app  # noqa: E402
from viewer.tasks import loadArray  # noqa: E402

SHAPE = (110, 110, 187)
DTYPES = ("int16", "float32", "float64")
TRIPS, FORMS = 21, 3
LARGE = 64 * 2**20
URL = os.environ["CELERY_RESULT_BACKEND"]
Samples = dict[str, list[float]]


def in_turns(rounds: int, **ways: Callable[[], None]) -> Samples:
    """Return how long each way took in each round; a first round is not counted."""
    samples: Samples = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:
                samples[name].append((time.perf_counter() - began) * 1e3)
    return samples


def trips(dtype: str) -> Samples:
    """loadArray through a worker: by the store, beside SET and GET; by reference, beside a file; and a small task."""
    array = (numpy.random.default_rng(1).random(SHAPE) * 1000).astype(dtype)
    content, store = array.tobytes(), redis.Redis.from_url(URL)
    path = settings.PETCT_DATA_DIR / f"bench-{dtype}.mpv"
    path.write_bytes(content)

    def load(**headers: str) -> None:
        result = loadArray.apply_async((path.name, SHAPE, array.dtype.str), headers=headers)
        found = result.get(timeout=60)
        assert found.dtype == array.dtype and found[-1, -1, -1] == array[-1, -1, -1]
        result.forget()

    def raw() -> None:
        store.set("bench-volume", content, ex=60)
        assert len(store.get("bench-volume")) == len(content)
        store.delete("bench-volume")

    def by_reference() -> None:
        load(**celery_ops.read_here())

    def bare() -> None:
        file = shared_memory.directory() / "bench"
        file.write_bytes(content)
        assert len(file.read_bytes()) == len(content)
        file.unlink()

    def small() -> None:
        result = app.tasks["celery_ops.tick"].delay()
        result.get(timeout=60)
        result.forget()

    try:
        # Apart: Redis stands still while its file of large values is written out.
        return in_turns(TRIPS, load=load, raw=raw) | in_turns(TRIPS, by_reference=by_reference, bare=bare, small=small)
    finally:
        path.unlink()


def trip(backend: Any, value: Any) -> Any:
    """Return `value` after it was stored by a backend for a client that waits for it, and read by that client."""
    key, found = f"bench-{time.monotonic_ns()}", []
    consumer = backend.result_consumer
    consumer.on_state_change = lambda meta, message: found.append(meta["result"])
    consumer.consume_from(key)
    backend.store_result(key, value, "SUCCESS")
    deadline = time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        consumer.drain_events(timeout=1)
    consumer.cancel_for(key)
    backend.delete(backend.get_key_for_task(key))
    return found[0]


def forms(trips: int = TRIPS, lists: int = FORMS, of_lists: int = SHAPE[2]) -> Samples:
    """An array as it is through the kit's backend; as lists in JSON, and pickled, through Celery's own.

    In so many rounds; lists of so many of its layers, which take long.
    """

    def celerys(serializer: str) -> RedisBackend:
        other = Celery(serializer, set_as_current=False)
        other.conf.update(result_serializer=serializer, result_accept_content=[serializer])
        return RedisBackend(app=other, url=URL)

    array = numpy.random.default_rng(1).random(SHAPE).astype("float32")
    ours, as_json, pickled = type(app.backend)(app=app, url=URL), celerys("json"), celerys("pickle")

    layers = array[:, :, :of_lists].copy()

    def as_lists() -> None:
        assert numpy.array(trip(as_json, layers.tolist()), dtype="float32").shape == layers.shape

    samples = in_turns(trips, arrays=lambda: trip(ours, array), pickle=lambda: trip(pickled, array))
    return samples | in_turns(lists, arrays_by_lists=lambda: trip(ours, layers), lists=as_lists)


def peak_of(part: Callable[[], None]) -> float:
    """Return by how many bytes the peak of this process's memory grows while `part` runs."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before = memory("VmRSS")
    part()
    return memory("VmHWM") - before


def memory(name: str) -> float:
    """Return a line of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def writes(answer: Any) -> None:
    """Make an array, store it, and say how much memory both took, as in a worker."""
    backend = app.backend
    backend.store_result("bench-warm", 1, "SUCCESS")
    answer.put(peak_of(lambda: backend.store_result("bench-memory", numpy.ones(LARGE // 8), "SUCCESS")))


def reads(answer: Any) -> None:
    """Get it, and say how much memory that took."""
    backend = app.backend
    AsyncResult("bench-warm", app=app).get(timeout=60)
    answer.put(peak_of(lambda: AsyncResult("bench-memory", app=app).get(timeout=60)))
    backend.delete(backend.get_key_for_task("bench-memory"))
    backend.delete(backend.get_key_for_task("bench-warm"))


def peaks() -> Samples:
    """Memory of the worker's and of the caller's side, for an array of LARGE bytes; processes of their own."""
    context = get_context("fork")
    samples: Samples = {}
    for side in (writes, reads):
        answer = context.SimpleQueue()
        process = context.Process(target=side, args=(answer,))
        process.start()
        samples[side.__name__] = [answer.get()]
        process.join()
    return samples | {"array": [float(LARGE)]}


app.conf.task_serializer  # noqa: B018  reads the settings, and with them the kit's backend
if sys.argv[1:] == ["quick"]:
    print(json.dumps({"forms": forms(5, 3, 11)}))
else:
    # The children of `peaks` are made before this process has connections.
    print(json.dumps({"peaks": peaks(), "forms": forms(), "trips": {dtype: trips(dtype) for dtype in DTYPES}}))
