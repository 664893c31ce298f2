"""Processes as the kernel shows them, under the names and in the states that break parsers."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from support.wait import wait_until


@pytest.fixture
def cat():
    """A process that has begun to run: it has answered."""
    process = subprocess.Popen(["cat", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_process_its_parent_and_its_group(cat):
    found = proc.stat(cat.pid)
    assert (found.pid, found.parent, found.group) == (cat.pid, os.getpid(), cat.pid)
    assert 0 <= found.age < 60
    assert cat.pid in [child.pid for child in proc.children(os.getpid())]


@pytest.fixture
def parent_of_short_ones():
    """A process that always has a child, which lasts a hundredth of a second."""
    code = "import subprocess\nwhile True: subprocess.run(['sleep', '0.01'])"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_child_that_lasts_a_moment_is_seen_also_on_a_busy_host(parent_of_short_ones, monkeypatch):
    every = proc.pids

    def pids():
        found = every()
        time.sleep(0.1)  # until the last of them is looked at
        return found

    monkeypatch.setattr(proc, "pids", pids)
    wait_until(lambda: proc.children(parent_of_short_ones.pid), 5, "a child")


def test_children_are_found_on_a_kernel_without_lists_of_them(cat, monkeypatch, tmp_path):
    for pid in (cat.pid, os.getpid()):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes((proc.PROC / str(pid) / "stat").read_bytes())
    monkeypatch.setattr(proc, "PROC", tmp_path)
    assert [child.pid for child in proc.children(os.getpid())] == [cat.pid]


def test_a_name_with_parentheses_and_spaces_is_part_of_no_field():
    code = "ctypes.CDLL(None).prctl(15, b'a) Z 1 (b', 0, 0, 0); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", f"import ctypes, time; {code}"], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        found = proc.stat(process.pid)
        assert (found.parent, found.state in "RS") == (os.getpid(), True)
    finally:
        process.kill()
        process.wait()


def test_one_that_has_ended_is_none_also_while_nobody_has_waited_for_it(cat):
    cat.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, cat.pid, os.WEXITED | os.WNOWAIT)
    assert proc.stat(cat.pid) is None
    cat.wait()
    assert proc.stat(cat.pid) is None


def test_a_stopped_process_says_so(cat):
    cat.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, cat.pid, os.WSTOPPED | os.WNOWAIT)
    assert proc.stat(cat.pid).state == "T"


def test_words_are_what_was_typed(cat):
    assert proc.words(cat.pid) == ["cat", "-"]
    assert cat.pid in proc.of_this_host(os.geteuid())
