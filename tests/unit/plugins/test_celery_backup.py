"""What of a broker belongs to an application's backup."""

from __future__ import annotations

import os

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.celery_ops.kit.plugins.action.celery_backup import BEGUN, ActionModule, secrets_of, summary
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.modules.celery_backup import definitions_of, is_kept
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables


@pytest.mark.parametrize(
    ("queue", "kept"),
    [
        ("shop", True),
        ("shop.dead", True),
        ("celery_delayed_27", True),
        ("worker@host.celery.pidbox", False),
        ("celery-ops.canary.x", False),
        ("celeryev.1", False),
        ("amq.gen-1", False),
    ],
)
def test_tasks_are_kept_and_what_celery_makes_for_itself_is_not(queue, kept):
    assert is_kept(queue) is kept


def test_definitions_are_of_one_vhost_without_users():
    exported = {
        "rabbit_version": "3.10.8",
        "users": [{"name": "shop"}],
        "queues": [
            {"name": "shop", "vhost": "shop"},
            {"name": "web", "vhost": "web"},
            {"name": "amq.1", "vhost": "shop"},
        ],
        "exchanges": [],
        "bindings": [
            {"vhost": "shop", "source": "shop", "destination": "shop"},
            {"vhost": "shop", "source": "shop", "destination": "celeryev.1"},
        ],
    }
    found = definitions_of("shop", exported)
    assert found["queues"] == [{"name": "shop", "vhost": "shop"}]
    assert found["bindings"] == exported["bindings"][:1]
    assert "users" not in found


def test_the_passphrase_is_not_in_what_it_opens(tmp_path):
    for name in ("shop_broker_password", "shop_backup_passphrase", "web_broker_password", "rabbitmq_erlang_cookie"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/ca.crt").write_text("x")
    assert set(secrets_of(tmp_path, "shop")) == {"shop_broker_password", "rabbitmq_erlang_cookie", "tls/ca.crt"}


def test_the_secrets_of_an_application_with_a_longer_name_are_not_among_them(tmp_path):
    own = {"shop_broker_password", "shop_secret_key", "shop_flower_broker_password", "shop_flower_password"}
    for name in (*own, "shop_two_broker_password", "shop_two_secret_key"):
        (tmp_path / name).write_text("x")
    assert set(secrets_of(tmp_path, "shop")) == own
    assert set(secrets_of(tmp_path, "shop_two")) == {"shop_two_broker_password", "shop_two_secret_key"}


def test_secrets_that_the_inventory_has_generated_are_among_them_whatever_they_are_called(tmp_path):
    for name in ("secret_key", "another"):
        (tmp_path / name).write_text("x")
    action = ActionModule.__new__(ActionModule)
    made = trust_as_template(f"{{{{ lookup('ansible.builtin.password', '{tmp_path}/secret_key', length=50) }}}}")
    action._templar = Templar(loader=DataLoader(), variables={})
    action.variables = Variables({"celery_app_secrets": {"SECRET_KEY": made, "TOKEN": "x"}}, lambda value: value)
    assert set(secrets_of(tmp_path, "shop", action.generated())) == {"secret_key"}


def test_a_summary_counts_over_all_hosts():
    manifest = {"messages": {"a": 2, "b": 3}, "hosts": {"one": {"keys in Redis": 4}, "two": {"queues": 1}}}
    assert summary(manifest) == "5 messages of 2 queues, 4 keys in Redis, 1 queues, of 2 hosts"


def test_a_backup_keeps_its_name_though_the_default_has_the_time_in_it():
    action = object.__new__(ActionModule)
    action.variables = {"celery_app_backup_file": "/backups/later.sealed"}
    assert str(action.file) == "/backups/later.sealed"
    action.variables[BEGUN] = {"file": "/backups/begun.sealed"}
    assert str(action.file) == "/backups/begun.sealed"


def of(**variables):
    action = object.__new__(ActionModule)
    action.variables = {
        "celery_app_name": "shop", "celery_app_module": "shop.celery", "celery_app_broker_url": "",
        "inventory_hostname": "w1", "groups": {"worker": ["w1"], "rabbitmq": ["b1"], "result_store": ["b1"]},
        "hostvars": {"w1": {"celery_worker_programs": [{"name": "a", "queues": ["photos"]}]}, "b1": {}},
        "ansible_play_hosts": ["w1", "b1"], "ansible_play_hosts_all": ["w1", "b1"], **variables,
    }  # fmt: skip
    return action


def test_a_limit_without_broker_or_result_store_is_refused():
    of().refuse_limit()
    with pytest.raises(OperatorError, match=r"--limit leaves out b1, .*Leave --limit out, or name it, too"):
        of(ansible_play_hosts_all=["w1"]).refuse_limit()
    of(ansible_play_hosts_all=["w1"], groups={"worker": ["w1"]}).refuse_limit()


def test_at_a_broker_of_somebody_elses_all_queues_of_the_application_count(monkeypatch):
    action = of(celery_app_broker_url="amqp://shop:x@mq/shop")
    assert (action.broker, action.worker) == ("", "w1")
    asked = []

    def said_by(words):
        asked.append(words)
        return {"queues": {"photos": {"messages": 3}, "shop": None, "shop.dead": {"messages": 0}}}

    action.said_by = said_by
    assert action.own_queues() == {"photos": 3, "shop.dead": 0}
    assert asked == [["celery-ops-queues", "-A", "shop.celery", "--own", "photos", "shop", "shop.dead"]]
    action._task = type("Task", (), {"args": {"refuse": True}})
    action.variables["celery_app_restore_used"] = ""
    with pytest.raises(OperatorError, match=r"queues of shop have messages \(photos 3\)"):
        action.waiting()


def test_a_restore_without_a_file_offers_the_newest(tmp_path):
    for number, name in enumerate(("shop-2.sealed", "shop-1.sealed")):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (number, number))
    action = of(celery_app_backup_file=f"{tmp_path}/shop-3.sealed")
    with pytest.raises(OperatorError, match=r"there is no .*shop-3.*The newest there: -e .*/shop-1\.sealed$"):
        list(action.members())
