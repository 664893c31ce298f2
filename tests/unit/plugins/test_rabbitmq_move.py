"""What is moved from one broker to another, and what is said of it; tests/fleet moves an application under load."""

import json

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import HOUSEKEEPING_QUEUES
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_move
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_move import Left
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import problems

QUORUM = {"x-queue-type": "quorum"}
DELAYED = {**QUORUM, "x-message-ttl": 1000, "x-dead-letter-exchange": "celery_delayed_0"}
URLS = ["amqp://shop:secret@new:5672/shop"]


def queue(name, vhost="shop", arguments=QUORUM, **more):
    return {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": arguments, **more}


DEFINITIONS = {
    "vhosts": [{"name": "/"}, {"name": "shop"}],
    "users": [{"name": "shop"}, {"name": "shop-2", "tags": []}, {"name": "ops", "tags": ["administrator"]}],
    "permissions": [
        {"user": "shop", "vhost": "shop"},
        {"user": "shop-2", "vhost": "shop"},
        {"user": "ops", "vhost": "shop"},
        {"user": "crm", "vhost": "shop"},
        {"user": "crm", "vhost": "crm"},
    ],
    "queues": [
        queue("shop"),
        queue("shop.dead", arguments={}, type="classic"),
        queue("celery_delayed_1", arguments=DELAYED),
        queue("w@h.celery.pidbox"),
        queue("celery-ops.canary"),
        queue("reply", auto_delete=True),
        queue("other", vhost="crm"),
    ],
}


@pytest.fixture
def broker(monkeypatch, tmp_path):
    """A broker that answers with these definitions, messages and connections, and writes down what it is told."""
    state = {"definitions": json.loads(json.dumps(DEFINITIONS)), "messages": {}, "connections": [], "told": []}

    def rows(what, *_, vhost=""):
        if what == "list_connections":
            return state["connections"]
        return [{"name": name, "messages": count} for name, count in state["messages"].items()]

    def told(*words, raw=False):
        if words[0] == "shovel_status":
            return state.get("shovels", [])
        return state["told"].append(words)

    def define(parameters):
        state["told"].append(("define", *(one["name"] for one in parameters)))
        state["definitions"].setdefault("parameters", []).extend(parameters)

    monkeypatch.setattr(rabbitmq_move, "exported_definitions", lambda: state["definitions"])
    monkeypatch.setattr(rabbitmq_move, "rows_of", rows)
    monkeypatch.setattr(rabbitmq_move, "rabbitmqctl", told)
    monkeypatch.setattr(rabbitmq_move, "define", define)
    monkeypatch.setattr(rabbitmq_move, "switch_plugin", lambda verb: state["told"].append(("plugin", verb)))
    monkeypatch.setattr(rabbitmq_move, "ENABLED", tmp_path / "enabled_plugins")
    monkeypatch.setattr(rabbitmq_move, "STATE", tmp_path / "kit/moves.json")
    monkeypatch.setattr(rabbitmq_move, "move_authority", lambda app: tmp_path / f"move-{app}.pem")
    monkeypatch.setattr(rabbitmq_move, "POLL", 0.01)
    return state


def begin(**more):
    return rabbitmq_move.begin("shop", HOUSEKEEPING_QUEUES, URLS, **more)


def test_each_queue_that_holds_tasks_gets_a_shovel_and_no_other_one(broker):
    assert begin()
    assert broker["told"] == [
        ("plugin", "enable"),
        ("define", "celery-ops.move.shop", "celery-ops.move.shop.dead"),
    ]
    values = {one["name"]: one["value"] for one in broker["definitions"]["parameters"]}
    assert values["celery-ops.move.shop"]["dest-uri"] == URLS
    assert values["celery-ops.move.shop"]["dest-queue-args"] == QUORUM
    assert values["celery-ops.move.shop.dead"]["dest-queue-args"] == {"x-queue-type": "classic"}
    assert all(value["ack-mode"] == "on-confirm" for value in values.values())


def test_a_second_run_defines_nothing_and_a_changed_password_is_defined_anew(broker):
    begin()
    broker["told"].clear()
    assert not begin()
    assert broker["told"] == []
    assert rabbitmq_move.begin("shop", HOUSEKEEPING_QUEUES, ["amqp://shop:new@new:5672/shop"], check_mode=True)


def test_the_shovels_find_the_new_brokers_authority_until_the_move_is_confirmed(broker):
    file = rabbitmq_move.move_authority("shop")
    assert rabbitmq_move.trust("shop", "of the new one", check_mode=True)
    assert not file.exists()
    assert rabbitmq_move.trust("shop", "of the new one")
    assert not rabbitmq_move.trust("shop", "of the new one")
    assert file.read_text() == "of the new one"
    assert rabbitmq_move.trust("shop", "after a rotation")
    begin()
    rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    assert not file.exists()
    assert not rabbitmq_move.trust("shop", ""), "without TLS"


def test_a_plugin_that_was_enabled_before_stays_enabled(broker):
    rabbitmq_move.ENABLED.write_text("[rabbitmq_management,rabbitmq_shovel].")
    begin()
    rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    assert not [words for words in broker["told"] if words[0] == "plugin"]


def test_check_mode_changes_nothing(broker):
    assert begin(check_mode=True)
    assert broker["told"] == []
    assert rabbitmq_move.noted("shop") == {}


def test_a_broker_without_the_vhost_is_named(broker):
    broker["definitions"]["vhosts"].pop()
    with pytest.raises(OperatorError, match="no vhost shop here"):
        begin()


def test_what_waits_for_its_time_is_told_from_what_is_to_be_moved(broker):
    begin()
    broker["messages"] = {"shop": 0, "celery_delayed_1": 3, "celery-ops.canary": 1}
    still = rabbitmq_move.wait("shop", HOUSEKEEPING_QUEUES, 5)
    assert still == Left({}, {"celery_delayed_1": 3})
    assert "3 messages wait on old1 until their time has come" in rabbitmq_move.outcome("shop", "old1", still)


def test_a_shovel_that_does_not_run_is_reported_with_its_queue(broker):
    begin()
    broker["messages"] = {"shop": 7}
    broker["shovels"] = [{"vhost": "shop", "name": "celery-ops.move.shop", "state": "terminated"}]
    with pytest.raises(OperatorError, match="The messages of shop can't be moved"):
        rabbitmq_move.wait("shop", HOUSEKEEPING_QUEUES, 0)
    broker["shovels"][0]["state"] = "running"
    assert rabbitmq_move.wait("shop", HOUSEKEEPING_QUEUES, 0) == Left({"shop": 7})


def test_the_old_broker_is_left_once_nothing_is_there_and_nobody_is_connected(broker):
    begin()
    broker["told"].clear()
    broker["messages"] = {"shop": 1}
    with pytest.raises(OperatorError, match="still has messages: shop 1"):
        rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    broker["messages"] = {"celery_delayed_1": 2}
    with pytest.raises(OperatorError, match="still has messages: celery_delayed_1 2"):
        rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    broker["messages"] = {}
    four = {"user": "shop", "peer_host": [10, 0, 0, 9], "name": "10.0.0.9:40404 -> 10.0.0.2:5671", "vhost": "shop"}
    broker["connections"] = [four]
    with pytest.raises(OperatorError, match=r"connected to vhost shop: shop from 10\.0\.0\.9"):
        rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    broker["connections"] = [{"user": "crm", "peer_host": "10.0.0.9", "vhost": "crm"}]
    assert broker["told"] == []
    assert rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES)
    assert broker["told"] == [
        ("clear_parameter", "--vhost", "shop", "shovel", "celery-ops.move.shop"),
        ("clear_parameter", "--vhost", "shop", "shovel", "celery-ops.move.shop.dead"),
        ("plugin", "disable"),
        ("delete_vhost", "shop"),
        ("delete_user", "shop"),
        ("delete_user", "shop-2"),
    ]
    broker["definitions"]["vhosts"].pop()
    assert not rabbitmq_move.finish("shop", HOUSEKEEPING_QUEUES), "a second time"


def test_the_status_of_the_new_broker_says_what_to_type_until_the_move_is_confirmed(broker):
    assert rabbitmq_move.note("shop", **{"from": "old1"})
    assert not rabbitmq_move.note("shop", **{"from": "old1"})
    [said] = problems(Status("shop", moves_from=rabbitmq_move.noted("shop")["from"]), has_programs=False)
    assert said.endswith("ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from=old1")
    assert rabbitmq_move.note("shop", **{"from": None})
    assert rabbitmq_move.noted("shop") == {}
