import io

import numpy as np
import pytest
from PIL import Image

from viewer import slices
from viewer.slices import PLANES, Levels, levels_of, png

AXIAL, CORONAL, SAGITTAL = PLANES


def picture(plane, voxel):
    """Return the picture through the one bright voxel of a 4 × 5 × 6 volume."""
    voxels = np.zeros((4, 5, 6), dtype=np.uint8)
    voxels[voxel] = 255
    data = png(Levels(voxels, 0, 1), plane, voxel[plane.axis], "Grey")
    return Image.open(io.BytesIO(data)).convert("L")


@pytest.mark.parametrize(
    ("plane", "size", "place"),
    # The voxel nearest to the patient's right, front and head is at the picture's top left.
    [(AXIAL, (4, 5), (0, 0)), (CORONAL, (4, 6), (0, 0)), (SAGITTAL, (5, 6), (0, 0))],
)
def test_right_front_and_head_are_at_the_top_left(plane, size, place):
    image = picture(plane, (0, 0, 5))

    assert image.size == size
    assert image.getpixel(place) == 255
    assert np.asarray(image).sum() == 255


def test_feet_are_at_the_bottom_and_left_is_at_the_right():
    assert picture(CORONAL, (3, 2, 0)).getpixel((3, 5)) == 255
    assert picture(SAGITTAL, (1, 4, 0)).getpixel((4, 5)) == 255
    assert picture(AXIAL, (3, 4, 2)).getpixel((3, 4)) == 255


def test_levels_keep_order_and_range():
    array = np.linspace(-1000, 3000, 1000).reshape(10, 10, 10)
    levels = levels_of(array)

    assert levels.voxels.flatten()[0] == 0
    assert levels.voxels.flatten()[-1] == 255
    assert np.all(np.diff(levels.voxels.flatten().astype(int)) >= 0)
    assert -1000 <= levels.low < levels.high <= 3000


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2)),
        np.full((2, 2, 2), np.nan),
        np.full((2, 2, 2), np.inf),
        np.array([[[np.nan, -np.inf], [np.inf, 1e300]]]),
    ],
)
def test_levels_of_hopeless_volumes_are_still_levels(array):
    levels = levels_of(array)

    assert levels.voxels.dtype == np.uint8
    assert np.isfinite([levels.low, levels.high]).all()


def test_one_bright_voxel_is_seen():
    array = np.zeros((20, 20, 20), dtype="<f4")
    array[3, 4, 5] = 7

    assert levels_of(array).voxels[3, 4, 5] == 255


def test_large_volumes_are_thinned_out():
    assert levels_of(np.zeros((1000, 2, 300), dtype="|u1")).voxels.shape == (250, 2, 150)


def test_palette_runs_from_the_first_to_the_last_stop():
    flat = slices.palette("Hot")

    assert len(flat) == 768
    assert flat[:3] == slices.COLOURS["Hot"][0]
    assert flat[-3:] == slices.COLOURS["Hot"][-1]
