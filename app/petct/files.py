"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_file(directory: Path, content: bytes) -> Iterator[Path]:
    """Give a file in `directory` that holds all of `content`, to be moved to its place; left there, it goes.

    Raises OSError.
    """
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".saving-", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
