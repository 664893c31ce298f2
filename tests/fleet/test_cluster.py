"""The brokers are one cluster: formed of the inventory's hosts, and no task is lost when one of them goes away."""

from __future__ import annotations

import re

import pytest
from support.cluster import await_whole, node_name, nodes, quorum_queues, running, status
from support.control import play
from support.host import APP
from support.load import Load, reconciled
from support.long import ALL, LONG
from support.results import keep_of_cluster
from support.wait import wait_until

STALL = 1.0
"""Seconds without a confirmed publish in a restart of node after node."""


def test_the_cluster_has_the_hosts_of_the_inventory(brokers):
    for host in brokers:
        state = status(host)
        assert sorted(state["disk_nodes"]) == sorted(state["running_nodes"]) == nodes(brokers)
        assert not state["partitions"]
        assert host.output("rabbitmqctl -q eval 'net_kernel:get_net_ticktime().'") == "8"
        assert host.output("stat -c '%a %U' /var/lib/rabbitmq/.erlang.cookie") == "400 rabbitmq"
    assert len({host.output("sha256sum < /var/lib/rabbitmq/.erlang.cookie") for host in brokers}) == 1


def test_a_queue_has_a_member_on_each_of_them(brokers):
    found = quorum_queues(brokers[0])
    assert {APP, f"{APP}.dead"} <= set(found)
    assert {name: sorted(row["members"]) for name, row in found.items()} == dict.fromkeys(found, nodes(brokers))
    policies = brokers[0].output(f"rabbitmqctl -q -p {APP} list_policies --formatter json")
    assert "at-least-once" in policies


@pytest.mark.timeout(420)
def test_a_rolling_restart_loses_nothing(brokers, workers):
    before = {host: host.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") for host in brokers}
    load = Load(workers[0], "restarted", rate=20)
    wait_until(load.begun, 60, "tasks of the load")
    restart = play("rabbitmq_restart")
    assert restart.rc == 0, restart.text[-3000:]
    for host in brokers:
        assert host.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") != before[host]
    numbers = reconciled(load, workers, patience=10)
    assert numbers["lost"] == [], numbers
    assert numbers["confirmed"] > 400, numbers
    keep_of_cluster("rolling restart", numbers, brokers[0], workers[0])
    if ALL:  # in CI other scenarios run beside it
        assert numbers["stall"] < STALL, numbers


@LONG
def test_a_restart_does_not_begin_while_a_node_is_missing(brokers):
    hub, two, three = brokers
    since = hub.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server")
    three.output("systemctl stop rabbitmq-server")
    try:
        wait_until(lambda: node_name(three) not in running(hub), 30, "the others noticing")
        run = play("rabbitmq_restart", hub)
        shown = play("status", hub)
    finally:
        three.output("systemctl start rabbitmq-server")
    assert run.rc != 0
    assert re.search(rf"{node_name(three)} does not run. End that first", run.words), run.text[-3000:]
    assert hub.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") == since
    assert f"{node_name(three)} down" in shown.words
    wait_until(lambda: running(two) == nodes(brokers), 90, "the node being back")


@LONG
@pytest.mark.timeout(900)
def test_a_node_that_is_lost_for_ever_is_replaced(brokers, workers):
    """Its host is installed anew, with the same name: RabbitMQ, its data and what the kit had written are gone."""
    hub, _, lost = brokers
    load = Load(workers[0], "replaced")
    wait_until(load.begun, 60, "tasks of the load")
    lost.output("systemctl stop rabbitmq-server epmd.socket epmd.service")
    lost.output("DEBIAN_FRONTEND=noninteractive apt-get purge -q -y rabbitmq-server 'erlang-*'")
    lost.output("rm -rf /var/lib/rabbitmq /etc/rabbitmq /etc/systemd/system/rabbitmq-server.service.d")
    refused = play("site", options=["--tags", "rabbitmq"])
    assert refused.rc != 0
    assert f"forget_cluster_node {node_name(lost)}" in refused.words, refused.text[-3000:]
    assert not any(refused.changed.values()), "nothing joins before that"
    hub.output(f"rabbitmqctl -q forget_cluster_node {node_name(lost)}")
    replaced = play("site", options=["--tags", "rabbitmq"])
    assert replaced.rc == 0, replaced.text[-3000:]
    await_whole(brokers)
    found = quorum_queues(lost)
    assert {name: sorted(row["members"]) for name, row in found.items()} == dict.fromkeys(found, nodes(brokers))
    numbers = reconciled(load, workers)
    assert numbers["lost"] == [], numbers
    assert numbers["confirmed"] > 100, numbers
