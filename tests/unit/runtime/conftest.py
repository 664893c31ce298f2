import shutil
import tempfile
from pathlib import Path

import pytest
from support.stage import Stage


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def open_stage():
    """A stage that other users can reach (tmp_path is root's alone)."""
    directory = Path(tempfile.mkdtemp(prefix="celery-ops-"))
    directory.chmod(0o755)
    stage = Stage(directory)
    yield stage
    stage.close()
    shutil.rmtree(directory)
