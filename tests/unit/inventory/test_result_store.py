"""A result store of several hosts: which form one, how programs reach it, and what the role is told."""

from __future__ import annotations

from functools import partial

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.environments import parse, refreshed
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.services_in_force import changed
from ansible_collections.celery_ops.kit.plugins.plugin_utils import environment, tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import environment_text
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import is_reachable_ipv4
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_members
from support.inputs import FLEET, input_of

GROUPS = FLEET | {"result_store": ["a", "b", "c"]}
HOSTS = {name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate("abc", 1)}
ON = {"celery_app_result_store_sentinel": True}


@pytest.fixture
def ask(tmp_path):
    """A function that returns what the lookup says of an input on a host of an inventory."""
    return partial(input_of, tmp_path, groups=GROUPS, hosts=HOSTS)


def test_several_hosts_form_a_store_only_where_it_is_asked_for():
    three = {"rabbitmq": ["a", "b", "c"], "result_store": ["a", "b", "c"]}
    assert store_members(three, lambda _: {}) == []
    assert store_members(three, lambda _: ON) == ["a", "b", "c"]
    # The brokers beside them are a cluster then, and not systems of their own.
    assert cluster_members(three, lambda _: {}) == []
    assert cluster_members(three, lambda _: ON) == ["a", "b", "c"]
    assert tls.is_on("result_store", {**three, "worker": ["a"]}, lambda _: ON, True)


def test_clients_are_told_ipv4_addresses():
    assert list(map(is_reachable_ipv4, ["10.0.0.1", "127.0.0.1", "0.0.0.0", "::1", "store1"])) == [True, *[False] * 4]


def test_the_role_is_told_of_all_hosts_and_a_host_alone_of_none(ask, tmp_path):
    assert ask("result_store_nodes", host="b", **ON) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert ask("result_store_address", host="b", **ON) == "10.0.0.2"
    assert ask("result_store_bind", host="b", **ON) == "0.0.0.0"
    password = ask("result_store_replication_password", host="b", **ON)
    assert password == ask("result_store_replication_password", host="c", **ON) != ""
    for name, none in (("nodes", []), ("address", ""), ("replication_password", "")):
        assert input_of(tmp_path, f"result_store_{name}", FLEET, "hub") == none


def test_the_firewall_lets_programs_reach_sentinel(ask):
    [rule] = ask("firewall_rules", host="b", **ON)
    assert rule["ports"] == [6379, 26379]
    assert ask("preflight_requirements", host="b", **ON)["listeners"]["result_store_sentinel_port"] == "0.0.0.0:26379"


VARIABLES = {
    "celery_app_name": "shop",
    "celery_app_result_store_password": "p/w",
    "celery_app_result_store_database": 3,
    "celery_app_result_store_host": "10.0.0.1",
    "celery_app_result_backend": "redis",
    "celery_app_broker_url": "amqp://elsewhere/",
    "celery_app_tls": True,
    "groups": GROUPS,
    "inventory_hostname": "one",
    "hostvars": {name: {**HOSTS.get(name, {}), **ON} for name in ("a", "b", "c", "hub", "one", "two")},
}
URL = ";".join(f"sentinel://shop:p%2Fw@10.0.0.{number}:26379/3" for number in (1, 2, 3))


def test_programs_get_the_urls_of_all_sentinels_and_what_they_need_beside_them():
    assert environment.redis_url(VARIABLES) == URL
    beside = environment.tls_of(VARIABLES, {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": URL})
    assert beside == {
        "CELERY_OPS_SENTINEL": "celery-ops",
        "CELERY_OPS_TLS_CA": "/etc/shop/ca.pem",
        "CELERY_OPS_TLS_CLIENT": "/etc/shop/client.pem",
    }
    open_ = environment.tls_of(VARIABLES | {"celery_app_tls": False}, {"CELERY_RESULT_BACKEND": URL})
    assert open_ == {"CELERY_OPS_SENTINEL": "celery-ops"}


def test_a_rollback_finds_the_store_where_it_is_today_in_the_database_of_then():
    then = {"CELERY_RESULT_BACKEND": "redis://shop:old@10.0.0.1:6379/1"}
    now = {"CELERY_RESULT_BACKEND": URL, "CELERY_OPS_SENTINEL": "celery-ops"}
    fresh = parse(refreshed(environment_text(then), environment_text(now), "shop"))
    assert fresh == {"CELERY_RESULT_BACKEND": URL.replace("/3", "/1"), "CELERY_OPS_SENTINEL": "celery-ops"}
    back = parse(refreshed(environment_text(now), environment_text(then), "shop"))
    assert back == {"CELERY_RESULT_BACKEND": "redis://shop:old@10.0.0.1:6379/3"}


def test_a_store_that_grows_is_the_same_store(ask):
    wanted = ask("services_in_force", host="one", **ON)
    for url in ("rediss://shop:x@10.0.0.1:6379/1", URL):
        assert list(changed("shop", {"CELERY_RESULT_BACKEND": url}, wanted, lambda _: set())) == []
    [said] = changed("shop", {"CELERY_RESULT_BACKEND": "redis://shop:x@10.0.0.9:6379/1"}, wanted, lambda _: set())
    assert "names a, b, c" in said
