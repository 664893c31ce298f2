"""A worker whose node of the cluster fails lives on, and consumes at another within BACK seconds; no task is lost.

CELERY_OPS_CHAOS=all also kills, freezes, drains and stops the node, and does all of that to each broker in turn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from support.cluster import await_whole
from support.host import APP, Host
from support.load import Load, reconciled
from support.long import ALL, LONG
from support.results import keep_of_cluster
from support.wait import wait_until

BACK = 30
"""Seconds from the fault until the worker consumes again."""


def signal_broker(name):
    return lambda host: host.output(f"pkill -{name} -u rabbitmq beam.smp")


class Fault(NamedTuple):
    """What happens to a node, what ends it, how many seconds it lasts, and the longest time without a confirm."""

    begin: Callable[[Host], object]
    end: Callable[[Host], object] = lambda host: None
    lasts: float = 25
    """A control queue on one node alone would be away for that long."""
    stall: float = 3


FAULTS = {
    "cut": Fault(Host.cut_off, Host.connect, stall=15),
    "SIGKILL": Fault(signal_broker("KILL"), lasts=0),  # systemd starts it again
    "frozen": Fault(signal_broker("STOP"), signal_broker("CONT"), stall=15),
    "drained": Fault(
        lambda host: host.output("rabbitmq-upgrade drain"), lambda host: host.output("rabbitmq-upgrade revive")
    ),
    "stopped": Fault(
        lambda host: host.output("systemctl stop rabbitmq-server"),
        lambda host: host.output("systemctl start rabbitmq-server"),
    ),
}
IN_CI = ("cut",)


def node_of(worker, brokers):
    """The node that the worker on a host is connected to."""
    [program] = worker.workers()
    lines = worker.ask(f"grep -ah 'Connected to amqp' /var/log/{APP}/{program}.log").splitlines()
    place = re.search(r"@([^/:]+)[:/]", lines[-1])[1]
    return next(host for host in brokers if place in (host.name, host.address, "127.0.0.1"))


@pytest.mark.timeout(420)
@pytest.mark.parametrize("fault", FAULTS if ALL else IN_CI)
def test_a_worker_whose_node_fails_consumes_at_another(fault, brokers, workers):
    worker = workers[0]
    pids, node = worker.workers(), node_of(worker, brokers)
    begin, end, lasts, stall = FAULTS[fault]
    others = [host for host in brokers if host is not node]
    connections = f"grep -ac 'Connected to amqp' /var/log/{APP}/{next(iter(pids))}.log"
    before = int(worker.ask(connections))
    load = Load(worker, f"node-{fault}", rate=20)
    wait_until(load.begun, 60, "tasks of the load")
    begin(node)
    begun = time.monotonic()
    try:
        wait_until(lambda: int(worker.ask(connections)) > before, BACK, "the worker at another node")
        wait_until(lambda: (others[0].consumers() or 0) > 0, BACK, "a consumer")
        assert node_of(worker, brokers) is not node
        wait_until(lambda: time.monotonic() > begun + lasts, lasts + 1, "the end of the fault")
    finally:
        end(node)
    await_whole(brokers)
    numbers = reconciled(load, workers, patience=10)
    assert numbers["lost"] == [], numbers
    assert worker.workers() == pids, "the worker has lived through it"
    with_store = " with the result store" if fault == "cut" and node is brokers[0] else ""
    keep_of_cluster(f"node {fault}{with_store}", numbers, node, worker)
    if ALL and not with_store:  # a publish of a task whose result is kept waits for the result store
        assert numbers["stall"] < stall, numbers  # in CI other scenarios run beside it


@LONG
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_broker_in_turn_fails_and_no_task_is_lost(fault, brokers, workers):
    """Also those that no program is connected to, which hold members and leaders of the queues."""
    begin, end, lasts, _ = FAULTS[fault]
    load = Load(workers[0], f"in-turn-{fault}", rate=20)
    wait_until(load.begun, 60, "tasks of the load")
    for node in brokers:
        begin(node)
        begun = time.monotonic()
        try:
            wait_until(lambda begun=begun: time.monotonic() > begun + lasts, lasts + 1, "the end of the fault")
        finally:
            end(node)
        await_whole(brokers)
    numbers = reconciled(load, workers)
    print(f"{fault}: {numbers}")
    assert numbers["lost"] == [], numbers
    assert numbers["confirmed"] > 20 * lasts, numbers
