"""Where a user's volume lies, and how to read it."""

import math

import numpy as np
from django.core.exceptions import ValidationError
from django.db import models

from viewer import draw3d
from viewer.errors import VolumeError


def valid_shape(shape: list[int]) -> None:
    """Refuse what loadArray would refuse."""
    try:
        draw3d.check_shape(shape)
    except VolumeError as error:
        raise ValidationError(str(error)) from error


class Record(models.Model):
    """One volume of one user."""

    userID = models.CharField(max_length=100, unique=True)
    filepath = models.CharField(max_length=500, help_text="Relative to the data directory (PETCT_DATA_DIR).")
    shape = models.JSONField(validators=[valid_shape], help_text="Voxels along x, y and z, e.g. [110, 110, 187].")
    dtype = models.CharField(max_length=3, default="<f4", choices=[(name, name) for name in draw3d.DTYPES])

    def __str__(self) -> str:
        return f"{self.userID} ({self.filepath})"

    @property
    def nbytes(self) -> int:
        """The size the file must have, in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize
