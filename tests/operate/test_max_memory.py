"""A worker that leaks under load is replaced by handover: nothing is lost, memory stays bounded, something consumes."""

from __future__ import annotations

import json
import threading
import time

import pytest
from support.control import Variants, deployed
from support.load import Load
from support.long import LONG
from support.wait import wait_until

LEAK = """

from celery.signals import task_postrun
leaked = []
@task_postrun.connect(weak=False)
def leak(**_):
    leaked.append(bytearray(b"x" * 500_000))
"""
LIMIT, RATE = 280, 8
MAIN = "-worker-default-"
HEARTBEAT = "cat /run/petct/petct-watchdog-*.heartbeat"


class Sampler(threading.Thread):
    """Looks at what the worker takes, all the time."""

    def __init__(self, host) -> None:
        super().__init__(daemon=True)
        self.host, self.over = host, threading.Event()
        self.memory: list[int] = []
        self.recycled = 0

    def run(self) -> None:
        """Look until told to stop."""
        while not self.over.wait(0.2):
            for name, program in json.loads(self.host.ask(HEARTBEAT) or '{"programs": {}}')["programs"].items():
                if MAIN in name and "memory" in program:
                    self.memory.append(program["memory"] >> 20)
                    self.recycled = program["recycled"]


@pytest.fixture(scope="module")
def leaking(host, tmp_path_factory):
    """The host with an application that leaks half a megabyte a task; afterwards, the one from before."""
    source = Variants(tmp_path_factory.mktemp("variants")).make("leaking", {"petct/celery.py": LEAK})
    programs = [{"name": "default", "queues": ["petct"], "concurrency": 2, "max_memory": f"{LIMIT}M"}]
    deployed(celery_app_source=str(source), celery_worker_programs=programs, celery_app_stage="staging")
    yield
    deployed()


@LONG
@pytest.mark.timeout(600)
def test_a_worker_that_leaks_is_replaced_and_nothing_is_lost(host, leaking):
    sampler = Sampler(host)
    load = Load(host, f"leaking-{time.time():.0f}", rate=RATE)
    wait_until(lambda: len(load.executions()) > 20, 60, "a steady load")
    sampler.start()
    try:
        wait_until(lambda: sampler.recycled >= 2, 300, "two replacements")
    finally:
        sampler.over.set()
        sampler.join(30)
        books = load.finish()
    print(f"{books} recycled {sampler.recycled}, at most {max(sampler.memory)} MiB")
    assert (books["lost"], books["doubled"]) == ([], []), books
    assert books["samples"] > 100
    assert books["without_consumer"] == 0, "something consumes all the time"
    # What it takes from one look to the next, and while the stand-in starts: 30 s at the most.
    assert max(sampler.memory) < LIMIT + 30 * RATE * 0.5 + 30
    assert min(sampler.memory[-20:]) < LIMIT
    wait_until(lambda: host.ask("pgrep -fc [s]tandin") == "0", 60, "the end of the stand-in")
    log = host.ask("cat /var/log/petct/watchdog.log")
    assert f"and may take {LIMIT}; it is replaced" in log
