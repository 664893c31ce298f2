"""Which processes a removal may end: those of this host, not those of containers on it."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import packages
import pytest

# For a time of its own: other runs of this test on the machine have theirs.
SECONDS = f"61.{os.getpid()}"
SLEEP = ["setpriv", "--reuid", "games", "--clear-groups", "sleep", SECONDS]


def sleeping():
    """Pids of the sleeps; a process may be gone before it is looked at."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{SECONDS}\0".encode():
                found.add(int(path.parent.name))
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
def test_a_process_in_a_container_is_not_one_of_ours():
    outside = subprocess.Popen(SLEEP)
    # A pid namespace of its own is what every container's process has.
    around = subprocess.Popen(["unshare", "--pid", "--fork", *SLEEP])
    try:
        deadline = time.monotonic() + 10
        while len(sleeping()) < 2:
            assert time.monotonic() < deadline, "two processes"
            time.sleep(0.05)
        assert sleeping() & set(packages.processes_of("games")) == {outside.pid}
    finally:
        for pid in sleeping():
            os.kill(pid, signal.SIGKILL)
        for process in (around, outside):
            process.wait()
