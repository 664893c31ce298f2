"""A worker with messages ahead acknowledges in batches, and loses and doubles nothing by it."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import APP, Host
from support.wait import wait_until

pytestmark = pytest.mark.only_on("bare")  # RabbitMQ 3.10: the oldest
SCRIPT = Path(__file__).with_name("short_tasks.py")
DIRECTORY = f"/var/lib/{APP}/short_tasks"
AHEAD = 30


class ShortTasks:
    """The application on a host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def do(self, words: str) -> str:
        """Run a command of the release in its directory; return what it prints."""
        return self.host.output(f"{APP} env -C {DIRECTORY} {words}")

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker with two processes and fifteen messages ahead for each."""
        celery = "celery -A short_tasks worker -Q short-tasks -c 2 --prefetch-multiplier 16 -l WARNING --pidfile pid"
        words = f"{APP} env -C {DIRECTORY} {celery} -I celery_ops.tasks --without-gossip --without-mingle"
        return subprocess.Popen(["docker", "exec", self.host.name, "sh", "-c", words])

    def notes(self) -> Counter[int]:
        """How often each number was noted."""
        return Counter(map(int, self.host.ask(f"cat {DIRECTORY}/short_tasks.notes").split()))

    def await_notes(self, number: int) -> None:
        """Wait until so many different numbers were noted."""
        wait_until(lambda: len(self.notes()) >= number, 60, f"{number} tasks done")


@pytest.fixture
def short_tasks(host: Host) -> Iterator[ShortTasks]:
    host.output(f"install -d -o {APP} -g {APP} {DIRECTORY}")
    host.copy(SCRIPT, f"{DIRECTORY}/short_tasks.py")
    short_tasks = ShortTasks(host)
    yield short_tasks
    host.run(f"pid=$(cat {DIRECTORY}/pid) && kill -KILL $pid $(pgrep -P $pid)")  # of a test that failed
    short_tasks.do("python short_tasks.py clear")
    host.output(f"rm -r {DIRECTORY}")


def test_through_a_stop_a_lost_connection_and_a_kill_each_short_task_is_done(short_tasks):
    host, pid = short_tasks.host, f"$(cat {DIRECTORY}/pid)"
    short_tasks.do("python short_tasks.py fill 0 2000")

    worker = short_tasks.start()
    short_tasks.await_notes(500)
    host.output(f"kill -TERM {pid}")
    assert worker.wait(30) == 0
    stopped = short_tasks.notes()
    left = int(short_tasks.do("python short_tasks.py count"))
    assert left == 2000 - len(stopped), "a worker that has stopped has acknowledged what it did"

    worker = short_tasks.start()
    short_tasks.await_notes(len(stopped) + 300)
    assert set(short_tasks.notes().values()) == {1}
    host.output(f"rabbitmqctl -q close_all_connections --vhost {APP} 'test'")
    short_tasks.do("python short_tasks.py fill 2000 4000")
    short_tasks.await_notes(2300)
    assert worker.poll() is None, "a worker outlives its connection"
    host.run(f"children=$(pgrep -P {pid}); kill -KILL {pid} && kill -KILL $children")  # which may end by themselves
    assert worker.wait(30) == 137

    host.output(f"rm -f {DIRECTORY}/pid")
    short_tasks.do("python short_tasks.py fill 4000 4500")
    worker = short_tasks.start()
    short_tasks.await_notes(4500)
    host.output(f"kill -TERM {pid}")
    assert worker.wait(30) == 0
    assert short_tasks.do("python short_tasks.py count") == "0"
    doubled = [number for number, times in short_tasks.notes().items() if times > 1]
    assert len(doubled) <= 2 * (AHEAD // 2 + 2), "what was held in these two moments, and what ran"
