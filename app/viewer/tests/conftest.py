from pathlib import Path

import numpy as np
import pytest

from viewer.models import Record


@pytest.fixture
def volume(data_directory: Path) -> np.ndarray:
    """A small volume with a value of its own in each voxel, stored as volume.mpv."""
    array = np.arange(4 * 5 * 6, dtype="<f4").reshape(4, 5, 6)
    (data_directory / "volume.mpv").write_bytes(array.tobytes())
    return array


@pytest.fixture
def record(db: None, volume: np.ndarray) -> Record:
    return Record.objects.create(userID="anna", filepath="volume.mpv", shape=[4, 5, 6], dtype="<f4")
