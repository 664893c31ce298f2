"""What the workers do for the viewer."""

from collections.abc import Sequence

import numpy as np
from celery import shared_task

from viewer import draw3d


# The log needs to say that a volume was read, not what was in it.
@shared_task(name="loadArray", resultrepr_maxsize=24)
def loadArray(filepath: str, shape: Sequence[int], dtype: str = "<f4") -> np.ndarray:
    """Read a raw volume from the data directory; the array, or a VolumeError, is the task's result."""
    return draw3d.loadArray(filepath, shape, dtype)
