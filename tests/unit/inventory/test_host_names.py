"""Hosts with unusual names and addresses: IPv6, capitals, underscores. Each works, or is refused by name."""

import amqp.transport
import pytest
import redis
from ansible_collections.celery_ops.kit.plugins.plugin_utils import environment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import variables as rules
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import node_name
from celery.utils.nodenames import nodename, nodesplit
from kombu import Connection

ADDRESSES = [
    ("10.0.0.5", "10.0.0.5"),
    ("2001:db8::5", "[2001:db8::5]"),
    ("::1", "[::1]"),
    ("[::1]", "[::1]"),
    ("Broker-1.Example", "Broker-1.Example"),
    ("my_broker", "my_broker"),
]


@pytest.mark.parametrize(("address", "in_url"), ADDRESSES)
def test_an_address_in_a_url_is_found_again_by_the_clients(address, in_url):
    known = {
        "celery_app_name": "shop",
        "celery_app_broker_url": "",
        "celery_app_broker_user": "shop",
        "celery_app_broker_password": "p:w@x",
        "celery_app_broker_host": address,
        "celery_app_result_store_password": "p:w@x",
        "celery_app_result_store_host": address,
        "celery_app_result_store_database": 1,
        "celery_app_tls": True,
        "groups": {},
        "hostvars": {},
    }
    url = environment.broker_url(known)
    assert url == f"amqp://shop:p%3Aw%40x@{in_url}:5672/shop"
    connection = Connection(url)
    host = connection.info()["hostname"]
    assert host.lower() == address.strip("[]").lower()
    assert amqp.transport.to_host_port(f"{host}:{connection.port}") == (host, 5672)
    options = redis.ConnectionPool.from_url(environment.redis_url(known)).connection_kwargs
    assert (options["host"].lower(), options["port"], options["db"]) == (address.strip("[]").lower(), 6379, 1)


@pytest.mark.parametrize("host", ["Worker_1", "2001:db8::7", "web.Example.org", "10.0.0.9"])
def test_a_workers_node_name_is_taken_apart_into_program_and_host(host):
    name = f"shop-worker-default-1a2b3c4d@{host}"
    assert nodesplit(name) == ["shop-worker-default-1a2b3c4d", host]
    assert nodename(*nodesplit(name)) == name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Broker_1", "rabbit@broker-1"),
        ("BROKER2.example.org", "rabbit@broker2"),
        ("2001:db8::5", "rabbit@2001-db8--5"),
        ("10.0.0.5", "rabbit@10-0-0-5"),
    ],
)
def test_a_node_of_a_cluster_gets_a_name_that_erlang_takes(host, name):
    assert node_name(host, {}) == name
    accepts, _, _ = rules.FORMS["rabbitmq_node_name"]
    assert accepts(name)


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("rabbitmq_bind", "::1", True),
        ("rabbitmq_bind", "::", True),
        ("rabbitmq_bind", "[::1]", False),
        ("rabbitmq_bind", "My_Host", False),
        ("result_store_bind", "::1", True),
        ("rabbitmq_distribution_bind", "10.0.0.5", True),
        ("rabbitmq_distribution_bind", "::1", False),
        ("rabbitmq_node_name", "rabbit@My_Host", True),
        ("rabbitmq_node_name", "rabbit@::1", False),
        ("celery_web_bind", "[::1]:8000", True),
        ("celery_web_bind", "[::]:8000", True),
        ("celery_web_bind", "::1:8000", False),
        ("celery_app_broker_host", "2001:db8::5", True),
        ("celery_app_broker_host", "My_Host", True),
        ("celery_app_broker_host", "[2001:db8::5]", False),
        ("celery_app_result_store_host", "2001:db8::5:6379/1", False),
    ],
)
def test_an_address_is_accepted_or_refused_by_name(variable, value, accepted):
    accepts, why, example = rules.FORMS[variable]
    assert bool(accepts(value)) is accepted
    assert why and accepts(example)
