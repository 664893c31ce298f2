"""The brokers are one cluster: formed of the inventory's hosts, and no task is lost when one of them goes away."""

from __future__ import annotations

import json
import re

import pytest
from support.control import play
from support.host import APP
from support.long import LONG
from support.results import keep_of_cluster
from support.wait import wait_until


def nodes(brokers):
    return [f"rabbit@{host.name}" for host in brokers]


def cluster(host):
    return json.loads(host.output("rabbitmqctl -q cluster_status --formatter json"))


def running(host):
    done = host.run("rabbitmqctl -q cluster_status --formatter json")
    return sorted(json.loads(done.stdout)["running_nodes"]) if done.rc == 0 else []


def queues(host):
    rows = json.loads(host.output(f"rabbitmqctl -q -p {APP} list_queues name type members --formatter json"))
    return {row["name"]: row for row in rows if str(row["type"]).endswith("quorum")}


def test_the_cluster_has_the_hosts_of_the_inventory(brokers):
    for host in brokers:
        state = cluster(host)
        assert sorted(state["disk_nodes"]) == sorted(state["running_nodes"]) == sorted(nodes(brokers))
        assert not state["partitions"]
        assert host.output("rabbitmqctl -q eval 'net_kernel:get_net_ticktime().'") == "8"
        assert host.output("stat -c '%a %U' /var/lib/rabbitmq/.erlang.cookie") == "400 rabbitmq"
    assert len({host.output("sha256sum < /var/lib/rabbitmq/.erlang.cookie") for host in brokers}) == 1


def test_a_queue_has_a_member_on_each_of_them(brokers):
    found = queues(brokers[0])
    assert {APP, f"{APP}.dead"} <= set(found)
    assert {name: sorted(row["members"]) for name, row in found.items()} == dict.fromkeys(found, sorted(nodes(brokers)))
    policies = brokers[0].output(f"rabbitmqctl -q -p {APP} list_policies --formatter json")
    assert "at-least-once" in policies


@pytest.mark.timeout(420)
def test_a_rolling_restart_loses_nothing(brokers, workers, load):
    before = {host: host.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") for host in brokers}
    with load(75) as said:
        restart = play("rabbitmq_restart")
    assert restart.rc == 0, restart.text[-3000:]
    for host in brokers:
        assert host.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") != before[host]
    assert said[0] == 0, said[1][-3000:]
    assert " 0 lost," in said[1], said[1][-3000:]
    keep_of_cluster("rolling restart", said[1], brokers[0], workers[0])


@LONG
def test_a_restart_does_not_begin_while_a_node_is_missing(brokers):
    hub, two, three = brokers
    since = hub.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server")
    three.output("systemctl stop rabbitmq-server")
    try:
        wait_until(lambda: nodes(brokers)[2] not in running(hub), 30, "the others noticing")
        run = play("rabbitmq_restart", hub)
        status = play("status", hub)
    finally:
        three.output("systemctl start rabbitmq-server")
    assert run.rc != 0
    assert re.search(rf"{nodes(brokers)[2]} does not run. End that first", run.words), run.text[-3000:]
    assert hub.output("systemctl show --property=ActiveEnterTimestamp rabbitmq-server") == since
    assert f"{nodes(brokers)[2]} down" in status.words
    wait_until(lambda: running(two) == sorted(nodes(brokers)), 90, "the node being back")
