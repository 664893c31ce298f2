"""One broker becomes a cluster of three under load, with what waits in its queues. The fleet is set up anew for it."""

from __future__ import annotations

import pytest
from support.cluster import node_name, quorum_queues, running
from support.control import play
from support.host import APP
from support.load import Load, reconciled
from support.long import LONG
from support.wait import wait_until

ALONE = "rabbit@localhost"
UNKNOWN = "3 x nobody.knows"
"""What is said of the dead letters."""


@LONG
@pytest.mark.timeout(2400)
def test_one_broker_becomes_three_with_its_tasks(hub, workers, brokers, regrouped):
    gone = play("uninstall", uninstall_confirm="yes", uninstall_services="yes")
    assert gone.rc == 0, gone.text[-4000:]
    alone = regrouped(rabbitmq=[hub])
    first = alone("site")
    assert first.rc == 0, first.text[-4000:]
    assert running(hub) == [ALONE]
    for number in range(3):
        hub.send("nobody.knows", number)
    # By name: on a slow machine the scheduler's own tasks expire meanwhile, and are there as well.
    wait_until(lambda: UNKNOWN in alone("dead_letters", hub).words, 30, "the dead letters")

    load = Load(workers[0], "growth")
    wait_until(load.begun, 60, "tasks of the load")
    refused = regrouped(rabbitmq=brokers)("site")
    assert refused.rc != 0, refused.text[-4000:]
    assert f"rabbitmq_node_name: {ALONE}" in refused.words, refused.text[-4000:]
    assert not any(refused.changed.values()), refused.changed
    cluster = regrouped({hub.name: {"rabbitmq_node_name": ALONE}}, rabbitmq=brokers)
    grown = cluster("site")
    assert grown.rc == 0, grown.text[-4000:]

    numbers = reconciled(load, workers, patience=60)
    print(f"growth, {grown.seconds:.0f} s: {numbers}")
    assert numbers["lost"] == [], numbers
    assert numbers["confirmed"] > 300, numbers
    members = sorted([ALONE, *(node_name(host) for host in brokers[1:])])
    found = quorum_queues(brokers[1])
    assert {name: sorted(row["members"]) for name, row in found.items()} == dict.fromkeys(found, members)
    assert {APP, f"{APP}.dead"} <= set(found)
    assert UNKNOWN in cluster("dead_letters", hub).words
