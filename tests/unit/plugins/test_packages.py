"""Which processes a removal may end: those of this host, not those of containers on it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import packages
import pytest

SLEEP = ["setpriv", "--reuid", "games", "--clear-groups", "sleep", "61"]


def sleeping():
    """Pids of the sleeps."""
    found = (path for path in Path("/proc").glob("[0-9]*/cmdline"))
    return {int(path.parent.name) for path in found if path.exists() and path.read_bytes() == b"sleep\x0061\x00"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
def test_a_process_in_a_container_is_not_one_of_ours():
    before = sleeping()
    outside = subprocess.Popen(SLEEP)
    # A pid namespace of its own is what every container's process has.
    around = subprocess.Popen(["unshare", "--pid", "--fork", *SLEEP])
    try:
        deadline = time.monotonic() + 10
        while len(sleeping() - before) < 2:
            assert time.monotonic() < deadline, "two processes"
            time.sleep(0.05)
        assert packages.processes_of("games") == [outside.pid]
    finally:
        for pid in sleeping() - before:
            os.kill(pid, signal.SIGKILL)
        for process in (around, outside):
            process.wait()
