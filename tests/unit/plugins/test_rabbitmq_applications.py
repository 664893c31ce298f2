"""An application's definitions, and what counts as a difference from what a broker exports."""

import json
import re
import shlex
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import HOUSEKEEPING_QUEUES, LEASE_QUEUE
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import (
    LIMITED,
    is_password,
    limited_users,
    vhosts_and_users,
)
from ansible_collections.celery_ops.kit.plugins.modules.rabbitmq_applications import (
    OperatorError,
    definitions_of,
    difference,
    differing,
    merged,
    refuse_immutable,
    shown,
    with_passwords,
)

FOUND = {
    "vhosts": [{"name": "shop", "metadata": {"tags": []}}],
    "users": [{"name": "shop", "password_hash": "abc", "limits": {}, "tags": []}],
    "policies": [{"vhost": "shop", "name": "tasks", "definition": {"delivery-limit": 5}, "priority": 0}],
}


def test_properties_that_were_not_asked_for_are_no_difference():
    assert differing({"vhosts": [{"name": "shop"}], "users": [{"name": "shop", "password_hash": "abc"}]}, FOUND) == []


def test_a_changed_password_policy_or_missing_vhost_is():
    wanted = {
        "vhosts": [{"name": "shop"}, {"name": "mail"}],
        "users": [{"name": "shop", "password_hash": "xyz"}],
        "policies": [{"vhost": "shop", "name": "tasks", "definition": {"delivery-limit": 6}}],
    }
    assert differing(wanted, FOUND) == ["vhosts: mail", "users: shop", "policies: shop tasks"]


def test_names_carry_no_secret():
    wanted = {"users": [{"name": "shop", "password_hash": "secret-hash"}]}
    assert "secret-hash" not in "".join(differing(wanted, FOUND))


def test_only_what_differs_is_imported():
    wanted = {"vhosts": [{"name": "shop"}, {"name": "mail"}], "users": [{"name": "shop", "password_hash": "abc"}]}
    assert difference(wanted, FOUND) == {"vhosts": [{"name": "mail"}]}


def test_what_an_export_leaves_out_is_off_or_empty():
    found = {"exchanges": [{"vhost": "shop", "name": "dead", "type": "fanout"}]}
    assert (
        differing({"exchanges": [{"vhost": "shop", "name": "dead", "internal": False, "arguments": {}}]}, found) == []
    )
    assert differing({"exchanges": [{"vhost": "shop", "name": "dead", "internal": True}]}, found) != []


def test_bindings_with_other_arguments_are_others():
    binding = {"vhost": "shop", "source": "a", "destination_type": "queue", "destination": "b", "routing_key": ""}
    assert differing({"bindings": [binding]}, {"bindings": [{**binding, "arguments": {}}]}) == []
    assert differing({"bindings": [binding]}, {"bindings": [{**binding, "arguments": {"x": 1}}]}) == [
        "bindings: shop a queue b"
    ]


def test_a_queue_that_exists_with_other_arguments_is_said_to_be_in_the_way():
    queue = {"vhost": "shop", "name": "dead", "arguments": {"x-queue-type": "quorum"}}
    found = {"queues": [{"vhost": "shop", "name": "dead", "arguments": {}}]}
    with pytest.raises(OperatorError, match="rabbitmqctl delete_queue -p shop dead"):
        refuse_immutable({"queues": [queue]}, found)
    refuse_immutable({"queues": [queue]}, {})


def test_the_diff_says_that_a_password_differs_and_not_how():
    wanted = {"users": [{"name": "shop", "password_hash": "xyz", "tags": []}]}
    diff = shown(wanted, FOUND)
    assert diff["before"] != diff["after"]
    assert "abc" not in str(diff) and "xyz" not in str(diff)


SHOP = {"name": "shop", "password": "test12", "dead_letter_except": r"celeryev.*|amq\..*"}
MAIL = SHOP | {"name": "mail", "password": "another one"}
# Password and hash of the worked example in RabbitMQ's guide on passwords.
HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_an_application_has_a_vhost_and_a_user_and_its_dead_letters_go_to_a_queue_of_its_own():
    wanted = definitions_of(SHOP, 5)
    assert [policy["vhost"] for policy in wanted["policies"]] == ["shop", "shop", "shop"]
    tasks, dead, _ = wanted["policies"]
    assert tasks["definition"] == {"dead-letter-exchange": "shop.dead", "delivery-limit": 5}
    names = ("shop", "mail", "celeryev.1", "amq.gen-x", "shop.dead")
    assert [name for name in names if re.match(tasks["pattern"], name)] == ["shop", "mail"]
    assert [name for name in ("shop", "shop.dead", "shop_dead") if re.match(dead["pattern"], name)] == ["shop.dead"]
    assert wanted["bindings"][0]["source"] == wanted["queues"][0]["name"] == "shop.dead"


def test_the_token_of_the_schedulers_lease_is_never_dropped():
    tasks, dead, lease = definitions_of(SHOP | {"dead_letter_except": HOUSEKEEPING_QUEUES}, 5)["policies"]
    queue = f"{LEASE_QUEUE}.shop"
    assert [bool(re.match(policy["pattern"], queue)) for policy in (tasks, dead, lease)] == [False, False, True]
    assert lease["definition"]["delivery-limit"] > 1e6
    assert not re.match(lease["pattern"], "shop")


def test_the_page_sets_up_somebody_elses_broker_as_the_kit_does_its_own():
    page = (Path(__file__).parents[3] / "docs/dead-letters.md").read_text()
    wanted = definitions_of(SHOP | {"dead_letter_except": HOUSEKEEPING_QUEUES}, 5)
    typed = [shlex.split(line) for line in re.findall(r"^rabbitmqctl -p shop set_policy .*$", page, re.MULTILINE)]
    policies = {words[-3]: (words[-2], json.loads(words[-1])) for words in typed}
    assert policies == {
        # re.escape writes more than anybody types.
        one["name"]: (one["pattern"].replace(r"\-", "-"), one["definition"])
        for one in wanted["policies"]
    }
    declared = re.findall(r"^rabbitmqadmin --vhost=shop declare (\w+) (?:name|source)=(\S+)", page, re.MULTILINE)
    kinds = ("exchanges", "queues", "bindings")
    assert declared == [(kind[:-1], one.get("name") or one["source"]) for kind in kinds for one in wanted[kind]]


def test_a_limited_user_has_a_tag_and_its_own_permissions_and_its_password_may_change():
    looker = {"name": "looker", "password": "test12", "configure": "^$", "write": "^$", "read": "^events$"}
    shop = SHOP | {"limited_users": [looker]}
    wanted = with_passwords(merged([definitions_of(shop, 5)]), [shop], {}, change=False)
    assert [(user["name"], user["tags"]) for user in wanted["users"]] == [("shop", []), ("looker", [LIMITED])]
    assert is_password(wanted["users"][1]["password_hash"], "test12")
    assert wanted["permissions"][1] == {
        **{"user": "looker", "vhost": "shop"},
        **{"configure": "^$", "write": "^$", "read": "^events$"},
    }
    known = {"users": [{"name": "looker", "password_hash": HASH}]}
    other = SHOP | {"limited_users": [looker | {"password": "another"}]}
    assert with_passwords(wanted, [other], known, change=False)["users"][1]["password_hash"] != HASH


def test_limited_users_are_known_by_their_tag_and_vhost():
    definitions = {
        "users": [
            {"name": "looker", "tags": [LIMITED]},
            {"name": "old", "tags": f"{LIMITED},x"},
            {"name": "shop-tim", "tags": []},
        ],
        "permissions": [{"user": name, "vhost": "shop"} for name in ("looker", "old", "shop-tim")]
        + [{"user": "looker", "vhost": "mail"}],
    }
    assert limited_users("shop", definitions) == ["looker", "old"]
    assert limited_users("mail", definitions) == ["looker"]
    assert vhosts_and_users("shop", definitions, {}) == ["RabbitMQ: user shop-tim"]


def test_several_applications_are_imported_in_one_go():
    wanted = merged([definitions_of(SHOP, 5), definitions_of(MAIL, 5)])
    assert [vhost["name"] for vhost in wanted["vhosts"]] == ["shop", "mail"]
    assert len(wanted["policies"]) == 6


def test_a_user_keeps_a_hash_that_is_of_its_password_and_gets_another_one_otherwise():
    wanted = definitions_of(SHOP, 5)
    found = {"users": [{"name": "shop", "password_hash": HASH}]}
    assert with_passwords(wanted, [SHOP], found)["users"][0]["password_hash"] == HASH
    for known, password in (({}, "test12"), (found, "test13")):
        fresh = with_passwords(wanted, [SHOP | {"password": password}], known)["users"][0]["password_hash"]
        assert fresh != HASH and is_password(fresh, password)


@pytest.mark.parametrize("password", ["", None])
def test_an_empty_password_would_let_anyone_in(password):
    with pytest.raises(OperatorError, match="shop has no password"):
        with_passwords(definitions_of(SHOP, 5), [SHOP | {"password": password}], {})


def test_a_user_that_programs_log_in_with_gets_no_other_password_in_a_rotation():
    wanted = merged([definitions_of(SHOP, 5)])
    known = {"users": [{"name": "shop", "password_hash": HASH}]}
    with_passwords(wanted, [SHOP], known, change=False)
    with pytest.raises(OperatorError, match=r"Write: celery_app_broker_user: shop-2$"):
        with_passwords(wanted, [SHOP | {"password": "another"}], known, change=False)
    second = SHOP | {"user": "shop-2", "password": "another"}
    made = with_passwords(merged([definitions_of(second, 5)]), [second], known, change=False)
    assert [user["name"] for user in made["users"]] == ["shop-2"]
    assert is_password(made["users"][0]["password_hash"], "another")
    assert made["permissions"][0]["user"] == "shop-2"
    assert made["vhosts"] == [{"name": "shop"}]
