"""What a worker repeats outlives a lost connection, at which Celery before 5.7 clears its timer."""

from types import SimpleNamespace

import pytest
from celery.utils.timer2 import Timer as Thread
from celery_ops.worker import repeat
from kombu.asynchronous.timer import Timer
from support.stage import RUNTIME
from support.wait import wait_until


@pytest.mark.parametrize("make", [Timer, Thread])
def test_what_is_repeated_goes_on_once_each_after_the_timer_was_cleared(make):
    timer, done = make(), []
    worker = SimpleNamespace(timer=timer)
    repeat.repeat(worker, 0.05, lambda: done.append("a"))
    repeat.repeat(worker, 60, lambda: done.append("b"))
    timer.call_after(60, done.append, ("of the connection",))
    for _ in range(2):
        timer.clear()
        assert len(timer.queue) == 2
    if make is Thread:
        wait_until(lambda: done.count("a") > 2, 10, "the calls")
        timer.stop()


def test_nothing_else_puts_a_call_into_a_workers_timer():
    users = [path.name for path in RUNTIME.rglob("*.py") if "call_repeatedly(" in path.read_text()]
    assert users == ["repeat.py"]
