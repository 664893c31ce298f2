"""Raw volumes (`.mpv`): C-order, little-endian, no header; shape and dtype are known from elsewhere."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from django.conf import settings

from viewer.errors import InvalidDtype, InvalidShape, OutsideDataDirectory, SizeMismatch, VolumeMissing

DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")
MAX_SIDE = 2048
# The whole array travels through the result store; above this it would crowd out everything else there.
MAX_BYTES = 128 * 1024 * 1024


def loadArray(filepath: str, shape: Sequence[int], dtype: str = "<f4") -> np.ndarray:
    """Read the volume at `filepath`, relative to the data directory, as an array of `shape` voxels (x, y, z).

    Raises a VolumeError: InvalidShape, InvalidDtype, OutsideDataDirectory, VolumeMissing or SizeMismatch.
    """
    sides = check_shape(shape)
    kind = check_dtype(dtype)
    expected = math.prod(sides) * kind.itemsize
    if expected > MAX_BYTES:
        raise InvalidShape(
            f"shape {list(sides)} of {kind.str} is {expected} bytes; at most {MAX_BYTES} are read. "
            "Store the volume at a lower resolution."
        )
    path = inside_data_directory(filepath)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == expected:
                flat = np.fromfile(file, dtype=kind, count=math.prod(sides))
                size = flat.nbytes
    except OSError as error:
        raise VolumeMissing(f"{path}: {error.strerror}. Put the file there, or correct the record.") from error
    if size != expected:
        raise SizeMismatch(
            f"{path} holds {size} bytes, but shape {list(sides)} of {kind.str} needs {expected}. "
            "Correct the record's shape or dtype, or copy the file again."
        )
    return flat.reshape(sides)


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return `shape` as three whole numbers from 1 to MAX_SIDE; raise InvalidShape otherwise."""
    sane = (
        isinstance(shape, list | tuple)
        and len(shape) == 3
        and all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in shape)
    )
    if not sane:
        raise InvalidShape(f"shape is {shape!r:.200}; it must be three whole numbers from 1 to {MAX_SIDE}.")
    return tuple(shape)


def check_dtype(dtype: str) -> np.dtype:
    """Return the NumPy dtype for one of DTYPES; raise InvalidDtype otherwise."""
    if dtype not in DTYPES:
        raise InvalidDtype(f"dtype is {dtype!r:.200}; it must be one of {', '.join(DTYPES)}.")
    return np.dtype(dtype)


def inside_data_directory(filepath: str) -> Path:
    """Return the real path of a regular file in the data directory, every symbolic link followed.

    Raises OutsideDataDirectory or VolumeMissing.
    """
    directory = settings.PETCT_DATA_DIR.resolve()
    try:
        path = (directory / filepath).resolve()
        # Also keeps us from opening a pipe, which would block the worker for ever.
        is_file = path.is_file()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise VolumeMissing(f"{filepath!r:.200} is no usable path: {error}.") from error
    if not path.is_relative_to(directory):
        raise OutsideDataDirectory(
            f"{filepath!r:.200} leads to {path}, outside the data directory {directory}. "
            "Move the file into the directory, or set PETCT_DATA_DIR."
        )
    if not is_file:
        raise VolumeMissing(f"{path} is not there (or is no file). Put it there, or correct the record.")
    return path
