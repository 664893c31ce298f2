import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from viewer.models import Record


@pytest.fixture
def volume(data_folder: Path) -> np.ndarray:
    """A small volume with a value of its own in each voxel, stored as volume.mpv."""
    array = np.arange(4 * 5 * 6, dtype="<f4").reshape(4, 5, 6)
    (data_folder / "volume.mpv").write_bytes(array.tobytes())
    return array


@pytest.fixture
def record(db: None, volume: np.ndarray) -> Record:
    return Record.objects.create(userID="anna", filepath="volume.mpv", shape=[4, 5, 6], dtype="<f4")


@pytest.fixture(scope="session")
def worker_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the real worker."""
    return tmp_path_factory.mktemp("worker-data")


@pytest.fixture(scope="session")
def worker(broker: Path, worker_data: Path) -> Iterator[subprocess.Popen]:
    """A real worker process on the folder broker."""
    log = broker / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "viewer.tests.folder_broker", "worker", "--pool", "solo"]
    environment = {
        **os.environ,
        "PETCT_TEST_FOLDER": str(broker),
        "PETCT_DATA_DIR": str(worker_data),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-l", "INFO", "--without-mingle", "--without-gossip", "--without-heartbeat"],
            env=environment,
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the worker did not come up:\n{log.read_text()}")
        time.sleep(0.05)
    yield process
    process.terminate()
    assert process.wait(30) == 0, log.read_text()
