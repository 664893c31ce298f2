"""Processes as the kernel shows them, under the names and in the states that break parsers."""

import os
import signal
import subprocess
import sys

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import proc


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
