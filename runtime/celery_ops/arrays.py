"""The serializer ``ndarray``: JSON in which numpy arrays travel as raw bytes, and never pickle.

Importing this module registers it with kombu. Data without an array is encoded as plain JSON, so what reads
JSON results goes on reading them. Where the application has registered a ``json`` of its own, that encodes and decodes
all that it can. With arrays the layout is::

    b"ndarray1" | length of the head (8 bytes, little-endian) | head | the arrays' bytes, one after another

The head is two lines of JSON: dtype, shape and order of each array, then the data with arrays replaced by index.
Arrays travel in C order, and come back in the order (C or Fortran), byte order and dtype that they had, writable. The
head is padded, so that the arrays' bytes begin at a multiple of 64: an array that is alone in a message needs no copy.
Celery's ``result_compression`` setting compresses results where that is wanted.
"""

import io
import json
import math
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from kombu.exceptions import EncodeError
from kombu.serialization import register, registry
from kombu.utils import json as kombus
from kombu.utils.json import JSONEncoder, object_hook

NAME = "ndarray"
CONTENT_TYPE = "application/x-celery-ops-ndarray"
MAX_BYTES = int(os.environ.get("CELERY_OPS_MAX_ARRAY_BYTES") or 256 * 2**20)
"""The largest message in bytes, both ways. Redis takes 512 MiB; RabbitMQ 4 takes 16 MiB, 3.x 128 MiB."""

_MAGIC = b"ndarray1"
_LENGTH = struct.Struct("<Q")
_MARKER = "celery-ops.ndarray"
_KINDS = "biufcSUmM"
_ALIGNED = 64


class ArrayError(ValueError):
    """An array that can't be sent or a message that can't be read; the message says what to do."""


class Message(NamedTuple):
    """Data as it travels: `head`, all there is where `arrays` is empty, and then the arrays' bytes."""

    head: bytes
    arrays: list[Any]

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return len(self.head) + sum(array.nbytes for array in self.arrays)

    def parts(self) -> Iterator[Any]:
        """Yield the bytes, one buffer after another; large arrays are not copied."""
        yield self.head
        for array in self.arrays:
            yield from _parts(array)


def dumps(data: Any, max_bytes: int | None = None) -> bytes:
    """Return `data` (JSON-able, numpy arrays and scalars allowed anywhere in it) as bytes.

    Raises ArrayError for arrays of objects or records and for more than `max_bytes` (default MAX_BYTES).
    """
    if not _has_own_json():
        return _dumps(data, max_bytes)
    try:
        _, _, payload = registry.dumps(data, "json")
    except EncodeError:  # for arrays, say
        return _dumps(data, max_bytes)
    payload = payload.encode() if isinstance(payload, str) else payload
    _check_size(len(payload), max_bytes)
    return payload


def _has_own_json() -> bool:
    """Whether the application has registered another ``json`` than kombu's."""
    codec = registry._encoders.get("json")
    return codec is not None and codec.encoder is not kombus.dumps


def _dumps(data: Any, max_bytes: int | None) -> bytes:
    message = message_of(data, max_bytes)
    if not message.arrays:
        return message.head
    whole = io.BytesIO()  # its value is taken without a copy
    for part in message.parts():
        whole.write(part)
    return whole.getvalue()


def message_of(data: Any, max_bytes: int | None = None) -> Message:
    """Return what `dumps` makes bytes of, and raise what it raises."""
    arrays: list[Any] = []

    class Encoder(JSONEncoder):
        def default(self, o: Any) -> Any:
            if not type(o).__module__.startswith("numpy") and not hasattr(o, "__array_interface__"):
                return super().default(o)
            import numpy

            if isinstance(o, numpy.generic) and o.dtype.kind in "biufSU":
                return o.item()
            if not isinstance(o, numpy.ndarray):
                return super().default(o)
            if o.dtype.kind not in _KINDS or isinstance(o, numpy.ma.MaskedArray):
                raise ArrayError(
                    f"an array of dtype {o.dtype} can't be sent: plain numbers, times and strings only, "
                    "no objects, records or masks; convert it first, e.g. array.astype('float32')"
                )
            arrays.append(o)
            return {"__type__": _MARKER, "__value__": len(arrays) - 1}

    body = json.dumps(data, cls=Encoder)
    _check_size(len(body) + sum(array.nbytes for array in arrays), max_bytes)
    if not arrays:
        return Message(body.encode(), arrays)
    table = [
        {"dtype": array.dtype.str, "shape": array.shape} | ({"order": "F"} if _is_fortran(array) else {})
        for array in arrays
    ]
    head = f"{json.dumps(table)}\n{body}".encode()
    head += b" " * (-(len(_MAGIC) + _LENGTH.size + len(head)) % _ALIGNED)
    return Message(_MAGIC + _LENGTH.pack(len(head)) + head, arrays)


def _is_fortran(array: Any) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def _parts(array: Any) -> Iterator[Any]:
    """Yield an array's bytes in C order: all at once where they lie so, else in pieces of some 64 kB."""
    import numpy

    if array.nbytes == 0:
        return
    if array.flags.c_contiguous:
        # As bytes: times have no buffer of their own.
        yield numpy.asarray(array).reshape(-1).view("u1").data
        return
    size = max(1, 2**16 // array.itemsize)
    for part in numpy.nditer(array, ["external_loop", "buffered"], order="C", buffersize=size):
        yield part.tobytes()


def loads(payload: bytes | str | memoryview, max_bytes: int | None = None) -> Any:
    """Return what `dumps` was given; raise ArrayError for a message that is damaged or too large.

    A bytearray is given away: an array that is alone in it keeps it as its memory.
    """
    given = payload
    if isinstance(payload, str):
        payload = payload.encode()
    view = memoryview(payload).cast("B")
    _check_size(len(view), max_bytes)
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        if _has_own_json():
            text = given if isinstance(given, str) else bytes(view)
            return registry.loads(text, registry.name_to_type["json"], "utf-8", force=True)
        return json.loads(bytes(view), object_hook=object_hook)
    start = len(_MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack(view[len(_MAGIC) : start])
        table, body = bytes(view[start : start + length]).split(b"\n")
        arrays = _read_arrays(json.loads(table), view[start + length :])
        return json.loads(body, object_hook=lambda found: _restore(found, arrays))
    except ArrayError:
        raise
    except (struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise ArrayError(f"damaged ndarray message of {len(view)} bytes: {error}") from error


def _read_arrays(table: list[dict[str, Any]], data: memoryview) -> list[Any]:
    import numpy

    arrays, offset = [], 0
    for entry in table:
        dtype, shape = numpy.dtype(str(entry["dtype"])), tuple(int(n) for n in entry["shape"])
        if dtype.kind not in _KINDS or any(n < 0 for n in shape):
            raise ArrayError(f"refused an array of dtype {dtype}, shape {shape}")
        size = dtype.itemsize * math.prod(shape)
        if offset + size > len(data):
            raise ArrayError(f"array of {size} bytes announced, {len(data) - offset} bytes are there")
        array = numpy.empty(shape, dtype)
        if size:
            array = numpy.frombuffer(data[offset : offset + size], dtype=dtype).reshape(shape)
        # A copy is writable, and lets go of the message, which may hold other large arrays.
        if entry.get("order") == "F" or len(table) > 1 or not (array.flags.writeable and array.flags.aligned):
            array = array.copy(order=entry.get("order") or "C")
        arrays.append(array)
        offset += size
    if offset != len(data):
        raise ArrayError(f"{len(data) - offset} bytes too many")
    return arrays


def _restore(found: dict[str, Any], arrays: list[Any]) -> Any:
    if found.keys() == {"__type__", "__value__"} and found["__type__"] == _MARKER:
        return arrays[found["__value__"]]
    return object_hook(found)


def _check_size(size: int, max_bytes: int | None) -> None:
    limit = MAX_BYTES if max_bytes is None else max_bytes
    if size > limit:
        raise ArrayError(
            f"{size} bytes are more than the {limit} allowed for one message; pass a file's path instead of "
            "its content, or raise CELERY_OPS_MAX_ARRAY_BYTES on both ends"
        )


register(NAME, dumps, loads, content_type=CONTENT_TYPE, content_encoding="binary")
