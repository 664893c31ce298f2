"""When a server counts as loaded, looked at as seldom as on a starved host. The process is a real one."""

import subprocess
import time
from collections.abc import Iterator

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.proc import stat
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.readiness import LOOKS, NotReady, Readiness
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import ProcessInfo
from support.wait import wait_until


@pytest.fixture
def alone() -> Iterator[ProcessInfo]:
    """A program that has started no process of its own, and has been up for the minimum uptime."""
    program = subprocess.Popen(["sleep", "60"])
    wait_until(lambda: (seen := stat(program.pid)) and seen.age > 1.1, 10, "an uptime of a second")
    yield ProcessInfo("app-web-1", "RUNNING", program.pid, 1, "", 0)
    program.kill()
    program.wait()


def test_a_few_looks_do_not_tell_that_it_starts_no_processes(alone):
    readiness = Readiness(Generation("app-web", "app-web-1", "", min_uptime=1, lasting_children=True))
    assert not readiness.look(alone)
    readiness.ready_at -= 1.1
    assert [readiness.look(alone) for _ in range(LOOKS - 1)] == [False] * (LOOKS - 2) + [True]


def test_a_ready_command_that_is_out_of_time_is_left_the_moment_to_say_why(alone):
    """Its clock began later than the program's, as it had to start: else the reason would be that it gave no answer."""
    says = ["sh", "-c", 'sleep 2; echo \'{"ready": false, "reason": "no canary"}\'; exit 1']
    readiness = Readiness(Generation("app-worker", "app-worker-1", "", ready=says, ready_timeout=1))
    with pytest.raises(NotReady, match="not ready within 1 s: its ready command says: no canary"):
        while not readiness.look(alone):
            time.sleep(0.05)
