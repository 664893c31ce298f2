import shutil
import tempfile
from pathlib import Path

import pytest
from celery import _state
from kombu.transport import memory
from support.stage import Stage


@pytest.fixture(autouse=True)
def nothing_of_another_test():
    """No test sees what another one of its process has left: in the broker in memory, or by making a worker."""
    forget()
    yield
    forget()


def forget():
    memory.Transport.global_state.clear()
    memory.Channel.queues.clear()
    _state._set_task_join_will_block(False)


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
