"""A build or a migration that is told to end takes along what it has started, and leaves the release unmarked."""

import os
import signal
import threading

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import build_command, host_work
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import start_time
from support.wait import wait_until


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
    return int(wait_until(lambda: path.exists() and path.read_text().strip(), 10, f"{path} written"))


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "], ids=["ends", "has to be killed"])
def test_a_migration_that_is_interrupted_leaves_no_process_behind(tmp_path, monkeypatch, terminated, stubborn):
    monkeypatch.setattr(build_command, "GRACE", 0.5)
    grandchild = tmp_path / "pid"
    command = ["sh", "-c", f"{stubborn}sh -c '{stubborn}echo $$ > {grandchild}; while :; do sleep 0.1; done' & wait"]

    def interrupt():
        # The module has one thread: the signal is for that one.
        signal.pthread_sigmask(signal.SIG_BLOCK, host_work.SIGNALS)
        read_when_written(grandchild)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(host_work.Interrupted, match="Interrupted by SIGTERM"):
        build_command.run(command, "Migrating", "", {}, None)
    pid = read_when_written(grandchild)
    # A zombie, which nobody has looked at yet, has ended.
    wait_until(lambda: not start_time(pid), 5, "the end of what the migration started")


def test_an_interruption_while_the_command_is_being_started_ends_it(tmp_path, monkeypatch, terminated):
    monkeypatch.setattr(build_command, "GRACE", 0.5)
    begun, popen = tmp_path / "pid", build_command.subprocess.Popen

    def interrupted(command, **options):
        process = popen(command, **options)
        read_when_written(begun)
        signal.raise_signal(signal.SIGTERM)  # for this thread; of a test process that has others, any might take it
        return process

    monkeypatch.setattr(build_command.subprocess, "Popen", interrupted)
    with pytest.raises(host_work.Interrupted):
        build_command.run(["sh", "-c", f"echo $$ > {begun}; sleep 60"], "Migrating", "", {}, None)
    assert not start_time(read_when_written(begun))
