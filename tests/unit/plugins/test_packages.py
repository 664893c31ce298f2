"""Waiting for apt's locks; and which processes a removal may end: those of this host, not those of containers on it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import packages
from support.wait import wait_until

# For a time of its own: other runs of this test on the machine have theirs.
SECONDS = f"61.{os.getpid()}"
SLEEP = ["setpriv", "--reuid", "games", "--clear-groups", "sleep", SECONDS]
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


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
        wait_until(lambda: len(sleeping()) == 2, 10, "two processes")
        assert sleeping() & set(packages.processes_of("games")) == {outside.pid}
    finally:
        for pid in sleeping():
            os.kill(pid, signal.SIGKILL)
        for process in (around, outside):
            process.wait()


@pytest.fixture
def apt_host(tmp_path, monkeypatch):
    """A host of its own for apt: its lists, cache and status are in a directory."""
    for directory in ("lists/partial", "cache/archives/partial", "etc"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "status").touch()
    settings = {
        "Dir::State::lists": "lists", "Dir::State::status": "status", "Dir::Cache": "cache",
        "Dir::Etc::sourcelist": "etc/none", "Dir::Etc::sourceparts": "etc",
    }  # fmt: skip
    lines = [f'{name} "{tmp_path / place}";\n' for name, place in settings.items()]
    (tmp_path / "apt.conf").write_text("".join(lines) + f'APT::Sandbox::User "{Path.home().owner()}";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))


@pytest.fixture
def holder(tmp_path, apt_host):
    """Another program that holds the lock of apt's lists, until it reads a line."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "lists/lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_locked_package_lists_are_waited_for(holder, monkeypatch):
    tries = []

    def pause(seconds):
        tries.append(seconds)
        if len(tries) == 2:
            holder.communicate("\n")

    monkeypatch.setattr(packages.time, "sleep", pause)
    assert packages.apt(["update"], "") is not None
    assert len(tries) >= 2


def test_locks_that_are_not_released_are_named_with_their_holder(holder, monkeypatch):
    monkeypatch.setattr(packages, "LOCK_TIMEOUT", 0.0)
    with pytest.raises(OperatorError) as caught:
        packages.apt(["update"], "")
    said = str(caught.value)
    assert f"lists/lock. It is held by process {holder.pid}" in said
    assert "then run this again" in said
