"""Whatever a variable holds, the check of the inventory says what is wrong with it, and does not fail itself."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import (
    HOST_RULES,
    INVENTORY_RULES,
    PLACE_RULES,
    variables,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    GROUPS,
    Host,
    Inventory,
    declared,
)

NAME = "Web-1.example"
VALUES = [None, 0, 1.5, True, "", "'", "~nobody-of-that-name/x", 5000 * "9", [None], [[]], [{}], {}, {1: [None]}]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:25])
def test_no_rule_fails_itself(value, tmp_path):
    given = {
        "celery_app_name": "shop", "celery_app_source": str(tmp_path), "inventory_dir": str(tmp_path),
        "celery_app_secrets_dir": str(tmp_path / "secrets"), "celery_app_cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    for variable in declared():
        host = Host(NAME, given | {variable: value})
        inventory = Inventory([host], {group: [NAME] for group in GROUPS})
        found = [
            *(mistake for rule in HOST_RULES for mistake in rule(host)),
            *(mistake for rule in PLACE_RULES for mistake in rule(host, inventory)),
            *(mistake for rule in INVENTORY_RULES for mistake in rule(inventory)),
            *variables.secrets(host, lambda value: value),
        ]
        assert all(mistake.text for mistake in found)


@pytest.mark.parametrize(
    "entry",
    [
        {"name": name, key: value}
        for name in ("default", None, [], 1)
        for key in ("queues", "concurrency", "pool", "options", "handover", "time_limit", "autoscale", "max_memory")
        for value in (None, [], {}, "x", [None])
    ],
    ids=str,
)
def test_no_rule_fails_at_a_worker_program(entry):
    host = Host(NAME, {"celery_app_name": "shop", "celery_worker_programs": [entry]})
    assert [mistake.text for rule in HOST_RULES for mistake in rule(host)]


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        ("aZ0%#;$!&(){}[]~:@/+=", True),
        *((f"12345678{bad}", False) for bad in (" ", '"', "'", "\\", "\t", "ü", "\n")),
    ],
)
def test_a_password_between_hosts_is_a_word_of_their_configurations(password, fits):
    for variable in ("result_store_replication_password", "rabbitmq_erlang_cookie"):
        found = list(variables.secrets(Host(NAME, {variable: password}), lambda value: value))
        assert (not found) is fits
    of_app = Host(NAME, {"celery_app_broker_password": password})
    assert not list(variables.secrets(of_app, lambda value: value)) or "\n" in password
