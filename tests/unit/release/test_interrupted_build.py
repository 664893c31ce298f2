"""A build or a migration that is told to end takes along what it has started, and leaves the release unmarked."""

import os
import signal
import threading
import time

import pytest
from ansible.module_utils import host_work, release_build
from plugin_utils.runs import start_time


@pytest.fixture
def terminated():
    """SIGTERM as the process has it that works on the host."""
    before = signal.signal(signal.SIGTERM, host_work.interrupt)
    others = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    signal.signal(signal.SIGTERM, before)
    for number, handler in others.items():
        signal.signal(number, handler)


def read_when_written(path):
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "], ids=["ends", "has to be killed"])
def test_a_migration_that_is_interrupted_leaves_no_process_behind(tmp_path, monkeypatch, terminated, stubborn):
    monkeypatch.setattr(release_build, "GRACE", 0.5)
    grandchild = tmp_path / "pid"
    command = ["sh", "-c", f"{stubborn}sh -c '{stubborn}echo $$ > {grandchild}; while :; do sleep 0.1; done' & wait"]

    def interrupt():
        read_when_written(grandchild)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(host_work.Interrupted, match="Interrupted by SIGTERM"):
        release_build.run(command, "Migrating", "", {}, None)
    pid, deadline = read_when_written(grandchild), time.monotonic() + 5
    while start_time(pid):  # a zombie, which nobody has looked at yet, has ended
        assert time.monotonic() < deadline, "it outlived the migration"
        time.sleep(0.02)
