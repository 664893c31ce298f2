import datetime
import json
import pickle
import tracemalloc
import uuid

import celery_ops
import numpy
import pytest
from celery import Celery
from celery_ops import arrays
from kombu import serialization
from kombu.exceptions import ContentDisallowed, EncodeError


def through(data):
    return arrays.loads(arrays.dumps(data))


ARRAYS = [
    numpy.arange(24, dtype="<f4").reshape(2, 3, 4),
    numpy.arange(6, dtype=">i2").reshape(2, 3),
    numpy.asfortranarray(numpy.arange(6, dtype="float64").reshape(2, 3)),
    numpy.asfortranarray(numpy.arange(6, dtype=">u4").reshape(1, 2, 3)),
    numpy.arange(20)[::3],
    numpy.arange(10**5).reshape(100, -1)[::7, ::-2],
    numpy.arange(6).reshape(2, 3)[:, None].transpose(2, 0, 1),
    numpy.broadcast_to(numpy.float32(3), (2, 2)),
    numpy.array(7, dtype="uint8"),
    numpy.array([numpy.nan, -0.0, numpy.inf], dtype="float16"),
    numpy.zeros((0, 3), dtype="complex64"),
    numpy.array([], dtype=">M8[ns]"),
    numpy.array([True, False]),
    numpy.array(["a", "ßß"]),
    numpy.array([b"x", b"yz"]),
    numpy.array(["2026-01-01"], dtype="datetime64[D]"),
]


@pytest.mark.parametrize("given", [bytes, bytearray], ids=["copied", "in place"])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}{array.strides}")
def test_an_array_comes_back(array, given):
    back = arrays.loads(given(arrays.dumps({"array": array})))["array"]
    assert (back.shape, back.dtype.str) == (array.shape, array.dtype.str)
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable and back.flags.aligned
    # What lies in neither order comes back in C order.
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    assert back.flags.f_contiguous if fortran else back.flags.c_contiguous


def test_an_array_alone_in_a_message_that_is_given_away_is_not_copied():
    message = bytearray(arrays.dumps([numpy.arange(3.0)]))
    [back] = arrays.loads(message)
    message[-8:] = bytes(8)
    assert back[2] == 0
    first, _ = arrays.loads(bytearray(arrays.dumps([numpy.arange(3), numpy.arange(3)])))
    assert first.flags.owndata  # it does not keep the other one


def test_readers_of_before_get_the_same_values():
    """They know neither of orders nor of padding: the bytes are in C order, and the padding is JSON's."""
    array = numpy.asfortranarray(numpy.arange(6, dtype=">f4").reshape(2, 3))
    payload = arrays.dumps({"a": array})
    length = int.from_bytes(payload[8:16], "little")
    table, body = payload[16 : 16 + length].split(b"\n")
    [entry] = json.loads(table)
    assert json.loads(body)["a"]["__value__"] == 0
    back = numpy.frombuffer(payload[16 + length :], dtype=entry["dtype"]).reshape(entry["shape"])
    assert numpy.array_equal(back, array)
    assert (16 + length) % 64 == 0


def test_arrays_anywhere_beside_other_types():
    first, second = numpy.arange(3), numpy.ones((2, 2), "float32")
    data = {
        "list": [first, {"deep": (second, first)}],
        "id": uuid.UUID(int=1),
        "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "number": numpy.int64(3),
        "float": numpy.float32(0.5),
        "text": "ß\n",
    }
    back = through(data)
    assert numpy.array_equal(back["list"][0], first)
    assert numpy.array_equal(back["list"][1]["deep"][0], second)
    assert (back["id"], back["when"], back["number"], back["float"], back["text"]) == (
        data["id"],
        data["when"],
        3,
        0.5,
        "ß\n",
    )


def test_a_bare_array_is_data_too():
    assert numpy.array_equal(through(numpy.arange(3)), [0, 1, 2])


def test_without_an_array_it_is_json():
    assert json.loads(arrays.dumps({"status": "SUCCESS", "result": None})) == {
        "status": "SUCCESS",
        "result": None,
    }
    assert arrays.loads(b'{"a": 1}') == arrays.loads('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    "array",
    [
        numpy.array([object()]),
        numpy.zeros(2, dtype=[("a", "i4")]),
        numpy.ma.masked_array([1, 2], mask=[0, 1]),
    ],
    ids=["objects", "records", "mask"],
)
def test_refused_arrays(array):
    with pytest.raises(arrays.ArrayError, match=r"can't be sent"):
        arrays.dumps({"array": array})


def test_limit_both_ways():
    payload = arrays.dumps(numpy.zeros(1000, "uint8"))
    with pytest.raises(arrays.ArrayError, match=r"999 allowed .* CELERY_OPS_MAX_ARRAY_BYTES"):
        arrays.dumps(numpy.zeros(1000, "uint8"), max_bytes=999)
    with pytest.raises(arrays.ArrayError, match="allowed for one message"):
        arrays.loads(payload, max_bytes=999)


def test_more_than_two_gigabytes_are_refused_before_a_byte_of_them_is_copied():
    with pytest.raises(arrays.ArrayError, match=r"^3221225\d{3} bytes are more than the 268435456 allowed"):
        arrays.dumps([numpy.broadcast_to(numpy.uint8(0), 3 * 2**30)])


def peak_of(call):
    """Return what a call returns, and by how many bytes it takes more memory at its peak."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array,
        numpy.asfortranarray,
        lambda array: numpy.repeat(array, 2, axis=2)[:, :, ::2],
        lambda array: [array[:50].copy(), array[50:].copy()],
    ],
    ids=["C", "Fortran", "strided", "list"],
)
def test_neither_side_takes_more_than_twice_the_array(make):
    data, size = make(numpy.ones((100, 100, 100))), 8 * 10**6
    message, peak = peak_of(lambda: arrays.dumps(data))
    assert peak < 1.2 * size  # beside the array
    given = bytearray(message)
    _, peak = peak_of(lambda: arrays.loads(given))
    assert peak < 1.2 * size  # beside the message


@pytest.mark.parametrize("damage", [lambda p: p[:-1], lambda p: p + b"x", lambda p: p[:12], lambda p: p[:30]])
def test_damaged_messages(damage):
    with pytest.raises(arrays.ArrayError):
        arrays.loads(damage(arrays.dumps(numpy.arange(3))))


def test_object_dtype_in_a_message_is_refused():
    payload = arrays.dumps(numpy.arange(3, dtype="int64")).replace(b'"<i8"', b'"|O8"')
    with pytest.raises(arrays.ArrayError):
        arrays.loads(payload)


def test_registered_with_kombu():
    content_type, encoding, payload = serialization.dumps({"a": numpy.arange(3)}, serializer="ndarray")
    accept = serialization.prepare_accept_content(["json", "ndarray"])
    back = serialization.loads(payload, content_type, encoding, accept=accept)
    assert numpy.array_equal(back["a"], [0, 1, 2])
    with pytest.raises(EncodeError):
        serialization.dumps({"a": object()}, serializer="ndarray")
    with pytest.raises(ContentDisallowed):
        serialization.loads(pickle.dumps({}), "application/x-python-serialize", "binary", accept=accept)


def test_an_application_without_json_keeps_its_results():
    serialization.unregister("json")
    try:
        assert through({"number": 7}) == {"number": 7}
    finally:
        serialization.register_json()


class Money:
    def __init__(self, cents):
        self.cents = cents


@pytest.fixture
def own_json():
    """An application that registers a `json` of its own."""

    class Encoder(json.JSONEncoder):
        def default(self, o):
            return {"cents": o.cents} if isinstance(o, Money) else super().default(o)

    def read(text):
        return json.loads(text, object_hook=lambda found: Money(found["cents"]) if "cents" in found else found)

    serialization.register("json", lambda data: json.dumps(data, cls=Encoder), read, "application/json", "utf-8")
    yield
    serialization.register_json()


@pytest.mark.usefixtures("own_json")
def test_the_json_of_an_application_writes_and_reads_what_it_can():
    app = Celery("demo", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_ops.apply(app)
    stored = app.backend.encode({"status": "SUCCESS", "result": Money(3)})
    assert json.loads(stored) == {"status": "SUCCESS", "result": {"cents": 3}}
    for payload in (stored, stored.decode(), bytearray(stored)):
        assert app.backend.decode(payload)["result"].cents == 3
    numpy.testing.assert_array_equal(through({"array": ARRAYS[0]})["array"], ARRAYS[0])
    with pytest.raises(EncodeError, match="Object of type object"):
        app.backend.encode({"result": object()})
