"""What can be wrong with a volume or on its way here.

Each takes one argument, the message, and lives at module level: so it comes out of Celery's result store
as the same class with the same words.
"""


class VolumeError(Exception):
    """The volume cannot be read; the message names the file and what to do."""


class InvalidShape(VolumeError):
    """The shape is not three whole numbers of a sane size."""


class InvalidDtype(VolumeError):
    """The dtype is not one of those the viewer reads."""


class OutsideDataDirectory(VolumeError):
    """The path leads out of the data directory, directly or by a symbolic link."""


class VolumeMissing(VolumeError):
    """There is no such file, or it cannot be opened."""


class SizeMismatch(VolumeError):
    """The file's size is not what shape × dtype says."""


class UnexpectedResult(VolumeError):
    """The task came back with something that is no volume."""


class ServiceUnreachable(Exception):
    """The broker or the result store does not answer; the message says which, and where to look."""
