"""Which brokers of an inventory form a cluster, and how their nodes are called and reached."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import (
    cluster_members,
    cluster_nodes,
    is_node_address,
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
    assert [is_node_address(text) for text in addresses] == [True, False, False, False, False]
