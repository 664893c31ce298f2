import datetime
import json
import pickle
import uuid

import numpy
import pytest
from celery_ops import arrays
from kombu import serialization
from kombu.exceptions import ContentDisallowed, EncodeError


def through(data):
    return arrays.loads(arrays.dumps(data))


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(24, dtype="<f4").reshape(2, 3, 4),
        numpy.arange(6, dtype=">i2").reshape(2, 3),
        numpy.asfortranarray(numpy.arange(6, dtype="float64").reshape(2, 3)),
        numpy.arange(20)[::3],
        numpy.array(7, dtype="uint8"),
        numpy.zeros((0, 3), dtype="complex64"),
        numpy.array([True, False]),
        numpy.array(["a", "ßß"]),
        numpy.array(["2026-01-01"], dtype="datetime64[D]"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_comes_back(array):
    back = through({"array": array})["array"]
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert numpy.array_equal(back, array)
    assert back.flags.c_contiguous and back.flags.writeable and back.flags.owndata


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
