"""The workers of the matrix use the stage of the runtime's unit tests."""

import pytest
from support.stage import Stage


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()
