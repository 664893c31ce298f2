"""Which brokers of an inventory form a cluster, and how their nodes are called and reached."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import is_reachable_ipv4
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import (
    cluster_members,
    cluster_nodes,
    refusals,
)

THREE = {"rabbitmq": ["a", "b", "c"], "result_store": ["a"], "worker": ["d"]}


@pytest.mark.parametrize(
    ("groups", "given", "members"),
    [
        (THREE, {}, ["a", "b", "c"]),
        (THREE | {"rabbitmq": ["a"]}, {}, []),
        ({"worker": ["d"]}, {}, []),
        (THREE | {"result_store": ["a", "b", "c"]}, {}, []),
        (THREE | {"result_store": []}, {}, ["a", "b", "c"]),
        (THREE, {"b": {"rabbitmq_bind": "127.0.0.1"}}, []),
        (THREE, {"b": {"rabbitmq_bind": "0.0.0.0"}}, ["a", "b", "c"]),
        (THREE, {"c": {"rabbitmq_shared": "yes"}}, []),
    ],
)
def test_several_brokers_form_a_cluster_unless_each_is_a_system_of_its_own(groups, given, members):
    assert cluster_members(groups, lambda name: given.get(name, {})) == members


@pytest.mark.parametrize(
    ("host", "given", "name", "address"),
    [
        ("broker1", {"ansible_host": "10.0.0.11"}, "rabbit@broker1", "10.0.0.11"),
        ("Broker_1.example.com", {"ansible_host": "10.0.0.11"}, "rabbit@broker-1", "10.0.0.11"),
        ("10.0.0.11", {}, "rabbit@10-0-0-11", "10.0.0.11"),
        ("b", {"ansible_host": "localhost"}, "rabbit@b", "127.0.0.1"),
        ("b", {"ansible_host": "1.2.3.4", "rabbitmq_distribution_bind": "10.0.0.3"}, "rabbit@b", "10.0.0.3"),
        (
            "b",
            {"ansible_host": "10.0.0.2", "rabbitmq_node_name": "rabbit@localhost"},
            "rabbit@localhost",
            "10.0.0.2",
        ),
    ],
)
def test_a_node_has_a_short_name_and_the_address_that_others_reach(host, given, name, address):
    assert cluster_nodes([host], lambda _: given) == [{"name": name, "address": address}]


def test_a_node_is_reached_at_an_ipv4_address_that_is_not_loopback():
    addresses = ("10.0.0.1", "127.0.0.1", "0.0.0.0", "fd00::1", "nowhere.invalid")
    assert [is_reachable_ipv4(text) for text in addresses] == [True, False, False, False, False]


NODES = ["rabbit@a", "rabbit@b", "rabbit@c"]
TWO, ALL = NODES[:2], NODES


def found(*members: list[str], **changes: dict) -> dict:
    """What the hosts a, b and c hold: the members of each one's cluster as its disk tells, and what is special."""
    common = {
        "data": [],
        "cookie": "same",
        "address": True,
        "release": "debian 13",
        "systemd": True,
        "runs": True,
        "tls": False,
    }
    hosts = {name: {**common, "node": f"rabbit@{name}", "members": each} for name, each in zip("abc", members)}  # noqa: B905
    for name in hosts:
        hosts[name].update(changes.get(name, {}))
    return hosts


@pytest.mark.parametrize(
    "hosts",
    [
        found([], [], []),
        found(ALL, ALL, ALL),
        found(["rabbit@a"], [], []),
        found([], TWO[1:], []),
        found(TWO, TWO, []),
        found(ALL, ALL),
        found(["rabbit@a"], [], [], a={"cookie": "other"}),
    ],
    ids=["new", "as it was", "grown from one", "grown from another", "grown from two", "limited", "own cookie"],
)
def test_hosts_that_form_one_cluster(hosts):
    assert refusals(NODES, hosts) == []


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (found(["rabbit@a"], ["rabbit@b"], []), "2 brokers or clusters with data of their own: rabbit@a; rabbit@b."),
        (found(TWO, TWO, ["rabbit@c"]), "2 brokers or clusters with data of their own: rabbit@a, rabbit@b; rabbit@c."),
        (found([*TWO, "rabbit@x"], [], []), "a belongs to a cluster with rabbit@x, and the inventory has no such host"),
        (found(ALL, ALL, []), "c holds no data, and its cluster still has rabbit@c as a member."),
        (found([], []), "a, b would become a member, and this run leaves out rabbit@c."),
        (
            found([], [], [], c={"data": ["rabbit@localhost"]}),
            "write in its host_vars: rabbitmq_node_name: rabbit@localhost",
        ),
        (found(ALL, ALL, ALL, b={"cookie": "other"}), "b is a member of rabbit@a, rabbit@b, rabbit@c and has another"),
        (found([], [], [], b={"release": "debian 12"}), "(a: debian 13, b: debian 12, c: debian 13)"),
        (found([], [], [], b={"address": False}), "b does not have the address that rabbit@b is to have"),
        (found([], [], [], b={"systemd": False}), "b runs without systemd"),
        (found([], [], [], b={"node": "rabbit@z"}), "b would be rabbit@z, which is not one of the cluster's nodes"),
    ],
)
def test_hosts_that_do_not_are_refused_by_name(hosts, says):
    texts = refusals(NODES, hosts)
    assert any(says in text for text in texts), texts
    assert all("  " not in text for text in texts)


STOPPED = {name: {"runs": False} for name in "abc"}
STOPPED_TLS = {name: {"runs": False, "tls": True} for name in "abc"}


@pytest.mark.parametrize(
    ("hosts", "tls", "refused"),
    [
        (found(ALL, ALL, ALL), True, "clear text with each other (a, b, c), and are to speak TLS"),
        (found(ALL, ALL, ALL, **STOPPED), True, ""),
        (found(ALL, ALL, ALL, **STOPPED | {"b": {"runs": True}}), True, "(b), and are to speak TLS"),
        (found(ALL, ALL, **STOPPED), True, "(a, b), and are to speak TLS"),
        (found(["rabbit@a"], [], []), True, ""),
        (found([], [], []), True, ""),
        (found(ALL, ALL, **STOPPED_TLS), True, ""),
        (
            found(ALL, ALL, ALL, **STOPPED_TLS | {"c": {"tls": True}}),
            False,
            "TLS with each other (c), and are to speak",
        ),
        (found(ALL, ALL, ALL, **STOPPED_TLS), False, ""),
    ],
    ids=["running", "stopped", "one runs", "stopped, limited", "grown", "new", "as it was", "back", "back, stopped"],
)
def test_the_protocol_between_nodes_changes_only_while_none_of_them_runs(hosts, tls, refused):
    texts = refusals(NODES, hosts, tls)
    assert [refused in text for text in texts] == ([True] if refused else []), texts
    if refused:
        assert f"rabbitmq_distribution_tls: {str(not tls).lower()}" in texts[0]
