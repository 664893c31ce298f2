"""Another broker or result store in the inventory than the one that is in force is refused, with what to type."""

from __future__ import annotations

from functools import partial

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.services_in_force import changed
from support.inputs import FLEET, input_of

HOSTS = {"10.0.0.1": "hub", "hub": "hub", "10.0.0.2": "two", "two": "two", "10.0.0.3": "three", "three": "three"}
NAMES = {"hub": {"10.0.0.1"}, "hub.example.com": {"10.0.0.1"}, "10.0.0.1": {"10.0.0.1"}}
ALONE = {"CELERY_BROKER_URL": "amqps://shop:secret@10.0.0.1:5671/shop"}
STORE = {"CELERY_RESULT_BACKEND": "rediss://shop:secret@10.0.0.1:6379/1?ssl_cert_reqs=required"}


@pytest.fixture
def says():
    """What is said on the host `two` whose environment is in force, when the inventory names these addresses."""

    def of(environment, addresses, group="rabbitmq", **more):
        wanted = {"addresses": {group: addresses}, "hosts": HOSTS, "here": "two", "moves_from": "", **more}
        said = list(changed("shop", environment, wanted, lambda name: NAMES.get(name, set())))
        assert "secret" not in "".join(said)
        return said

    return of


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["hub"],
        ["hub.example.com"],  # another name of the same address
        ["10.0.0.3", "10.0.0.1", "10.0.0.2"],  # grown
    ],
)
def test_the_same_broker_or_one_that_has_grown(says, addresses):
    assert says(ALONE, addresses) == []


def test_a_cluster_may_shrink_and_may_replace_a_member(says):
    cluster = {"CELERY_BROKER_URL": ";".join(f"amqp://shop:x@10.0.0.{each}:5672/shop" for each in (1, 2, 3))}
    assert says(cluster, ["10.0.0.3"]) == []
    assert says(cluster, ["10.0.0.2", "10.0.0.3", "10.0.0.4"]) == []
    [said] = says(cluster, ["10.0.0.4"])
    assert said.startswith("The application's broker is hub, two, three (CELERY_BROKER_URL), and the inventory (group")
    assert "rabbitmq_move_from=hub." in said


def test_loopback_is_the_host_itself(says):
    own = {"CELERY_BROKER_URL": "amqp://shop:x@127.0.0.1:5672/shop"}
    assert says(own, ["127.0.0.1"]) == says(own, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]) == []
    [said] = says(own, ["10.0.0.1"])
    assert "broker is two (CELERY_BROKER_URL), and the inventory (group rabbitmq) names hub: " in said


def test_another_broker_is_refused_with_what_to_type(says):
    assert says(ALONE, ["10.0.0.3"]) == [
        "The application's broker is hub (CELERY_BROKER_URL), and the inventory (group rabbitmq) names three: tasks "
        "that wait in the one would stay there. To move them, type: ansible-playbook playbooks/rabbitmq_move.yml -e "
        "rabbitmq_move_from=hub. If none wait there, or it is lost for ever, add once: -e preflight_leave_services=true"
    ]
    assert says(ALONE, ["10.0.0.3"], moves_from="hub") == []
    assert says(ALONE, ["10.0.0.3"], moves_from="three") != []


def test_a_broker_that_is_no_longer_in_the_inventory(says):
    [said] = says({"CELERY_BROKER_URL": "amqp://shop-2:x@10.0.0.9:5672/shop"}, ["10.0.0.3"])
    assert "broker is 10.0.0.9 (CELERY_BROKER_URL), and the inventory (group rabbitmq) names three" in said
    assert "write the host of 10.0.0.9 into the inventory again, outside of the group, and type: " in said


def test_another_result_store_is_refused_and_no_move_of_the_broker_allows_it(says):
    assert says(STORE, ["10.0.0.1"], "result_store") == []
    [said] = says(STORE, ["10.0.0.3"], "result_store", moves_from="hub")
    assert said.startswith("The application's result store is hub (CELERY_RESULT_BACKEND), and the inventory ")
    assert said.endswith("add once: -e preflight_leave_services=true")


@pytest.mark.parametrize(
    "environment",
    [{}, {"CELERY_BROKER_URL": "amqp://somebody:x@10.0.0.9//"}, {"CELERY_BROKER_URL": "redis://10.0.0.9/0"}],
    ids=["nothing deployed", "a broker of somebody else", "no RabbitMQ"],
)
def test_nothing_is_said_of_what_is_not_the_kits(says, environment):
    assert says(environment, ["10.0.0.3"]) == []


def test_what_the_inventory_says_of_them(tmp_path):
    ask = partial(input_of, tmp_path, "services_in_force", FLEET)
    wanted = ask("one")
    assert wanted["addresses"] == {"rabbitmq": ["hub"], "result_store": ["hub"]}
    assert (wanted["hosts"]["hub"], wanted["here"], wanted["moves_from"]) == ("hub", "one", "")
    assert ask("one", rabbitmq_move_from="old")["moves_from"] == "old"
    assert set(ask("one", celery_app_broker_url="amqp://x")["addresses"]) == {"result_store"}
    assert ask("one", preflight_leave_services="true") == {}
    alone = {"rabbitmq": ["hub"], "worker": ["one"]}
    assert input_of(tmp_path, "services_in_force", alone, "hub") == {}
