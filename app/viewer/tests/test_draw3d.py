import os
from pathlib import Path

import numpy as np
import pytest

from viewer import draw3d, errors


def test_reads_c_order_little_endian(volume):
    array = draw3d.loadArray("volume.mpv", [4, 5, 6])

    assert array.shape == (4, 5, 6)
    assert array.dtype == np.dtype("<f4")
    assert array[1, 2, 3] == volume[1, 2, 3] == 1 * 30 + 2 * 6 + 3


@pytest.mark.parametrize("dtype", draw3d.DTYPES)
def test_reads_every_dtype_it_names(data_directory, dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    (data_directory / "typed.mpv").write_bytes(array.tobytes())

    assert np.array_equal(draw3d.loadArray("typed.mpv", (2, 3, 4), dtype), array)


def test_takes_an_absolute_path_inside_the_data_directory(volume, data_directory):
    assert draw3d.loadArray(str(data_directory / "volume.mpv"), [4, 5, 6]).shape == (4, 5, 6)


@pytest.mark.parametrize(
    "shape",
    [
        [-4, 5, 6],
        [0, 5, 6],
        [4, 5],
        [4, 5, 6, 1],
        [4.0, 5, 6],
        [True, 5, 6],
        ["4", "5", "6"],
        "456",
        None,
        120,
        [10**9, 1, 1],
        [2048, 2048, 2048],
    ],
)
def test_refuses_an_absurd_shape(volume, shape):
    with pytest.raises(errors.InvalidShape):
        draw3d.loadArray("volume.mpv", shape)


@pytest.mark.parametrize("dtype", ["O", ">f4", "f4", "U9", "", None, ["<f4"], {"a": 1}, "<f4,<f4"])
def test_refuses_an_unknown_dtype(volume, dtype):
    with pytest.raises(errors.InvalidDtype, match="must be one of"):
        draw3d.loadArray("volume.mpv", [4, 5, 6], dtype)


def test_refuses_a_file_of_another_size(volume):
    with pytest.raises(errors.SizeMismatch, match=r"holds 480 bytes.*needs 484"):
        draw3d.loadArray("volume.mpv", [11, 11, 1])


@pytest.mark.parametrize("path", ["../secret.mpv", "/etc/passwd", "a/../../secret.mpv", ".."])
def test_refuses_a_path_outside_the_data_directory(data_directory, path):
    (data_directory.parent / "secret.mpv").write_bytes(b"1234")

    with pytest.raises(errors.OutsideDataDirectory):
        draw3d.loadArray(path, [1, 1, 1])


def test_refuses_a_symbolic_link_that_leads_outside(data_directory):
    (data_directory.parent / "secret.mpv").write_bytes(b"1234")
    (data_directory / "link.mpv").symlink_to("../secret.mpv")
    (data_directory / "linked").symlink_to("..", target_is_directory=True)

    for path in ("link.mpv", "linked/secret.mpv"):
        with pytest.raises(errors.OutsideDataDirectory):
            draw3d.loadArray(path, [1, 1, 1])


def test_follows_a_symbolic_link_that_stays_inside(volume, data_directory):
    (data_directory / "same.mpv").symlink_to("volume.mpv")

    assert draw3d.loadArray("same.mpv", [4, 5, 6]).shape == (4, 5, 6)


@pytest.mark.parametrize("path", ["gone.mpv", ".", "", "nul\0byte", "volume.mpv/x", "x" * 5000, None, 7])
def test_says_when_there_is_no_such_file(volume, path):
    with pytest.raises(errors.VolumeMissing):
        draw3d.loadArray(path, [4, 5, 6])


def test_does_not_wait_for_a_pipe(data_directory: Path):
    os.mkfifo(data_directory / "pipe.mpv")

    with pytest.raises(errors.VolumeMissing):
        draw3d.loadArray("pipe.mpv", [1, 1, 1])


def test_does_not_loop_with_symbolic_links(data_directory):
    (data_directory / "loop.mpv").symlink_to("loop.mpv")

    with pytest.raises(errors.VolumeMissing):
        draw3d.loadArray("loop.mpv", [1, 1, 1])
