"""From a volume to pictures: 8-bit levels, three planes, colours.

A volume's axes are x (towards the patient's left), y (towards the back) and z (towards the head). Planes are
shown the way radiologists hang them: patient's right at the picture's left, front or head at the top.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Longest side that goes to the browser, in voxels: 256³ are 16 MiB, the most that still feels quick.
MAX_SIDE = 256
# Colour maps: evenly spaced stops (red, green, blue), interpolated linearly, here and in the page's script.
COLOURS = {
    "Hot": [[0, 0, 0], [112, 24, 38], [192, 56, 16], [240, 122, 16], [253, 198, 74], [255, 255, 240]],
    "Grey": [[0, 0, 0], [255, 255, 255]],
    "Inverse": [[255, 255, 255], [0, 0, 0]],
}


@dataclass(frozen=True)
class Plane:
    """One way to cut: `axis` is the one the slider walks along."""

    name: str
    axis: int
    edges: tuple[str, str, str, str]
    """Marks at the picture's top, right, bottom and left."""


PLANES = (
    Plane("axial", 2, ("A", "L", "P", "R")),
    Plane("coronal", 1, ("H", "L", "F", "R")),
    Plane("sagittal", 0, ("H", "P", "F", "A")),
)


@dataclass(frozen=True)
class Levels:
    """A volume in 256 levels: 0 stands for `low` and less, 255 for `high` and more."""

    voxels: np.ndarray
    low: float
    high: float

    def count(self, plane: Plane) -> int:
        """How many slices there are in this plane."""
        return self.voxels.shape[plane.axis]

    def size(self, plane: Plane) -> tuple[int, int]:
        """Width and height of a slice, in voxels."""
        x, y, z = self.voxels.shape
        return {"axial": (x, y), "coronal": (x, z), "sagittal": (y, z)}[plane.name]

    def cut(self, plane: Plane, index: int) -> np.ndarray:
        """Return slice `index` as rows from the top, columns from the left."""
        rows = np.take(self.voxels, index, axis=plane.axis).T
        return rows if plane.name == "axial" else rows[::-1]


def levels_of(array: np.ndarray) -> Levels:
    """Reduce a volume to what a screen can show: at most MAX_SIDE voxels a side, 256 levels.

    Values that are no numbers count as `low`.
    """
    steps = tuple(slice(None, None, -(-side // MAX_SIDE)) for side in array.shape)
    with np.errstate(all="ignore"):
        voxels = array[steps].astype(np.float32)
        low, high = window_of(voxels)
        scale = 255 / (high - low) if high > low else 0
        voxels = np.nan_to_num((voxels - np.float32(low)) * np.float32(scale), nan=0, posinf=255, neginf=0)
    return Levels(np.ascontiguousarray(voxels.clip(0, 255).round().astype(np.uint8)), low, high)


def window_of(voxels: np.ndarray) -> tuple[float, float]:
    """Return the values to show darkest and brightest: the 1st and the 99.8th percentile.

    The very brightest voxels are left out since they would leave the rest black.
    """
    finite = voxels[np.isfinite(voxels)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite[:: max(1, finite.size // 500_000)], (1, 99.8))
    if low == high:
        # Otherwise one lesion in a sea of zeros would not be seen.
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def palette(colours: str) -> list[int]:
    """Return 256 × (red, green, blue) for one of COLOURS, flat."""
    stops = np.array(COLOURS[colours], dtype=float)
    where = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(where, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(int).ravel().tolist()


def png(levels: Levels, plane: Plane, index: int, colours: str = "Hot") -> bytes:
    """Return one slice as a PNG file's bytes."""
    image = Image.fromarray(np.ascontiguousarray(levels.cut(plane, index)))
    image.putpalette(palette(colours))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(picture: bytes) -> str:
    """Return a PNG as an address that carries its own content."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
