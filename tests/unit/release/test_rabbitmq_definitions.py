"""What counts as a difference between wanted definitions and what a broker exports."""

import pytest
from rabbitmq_definitions import Trouble, difference, differing, refuse_immutable, shown, with_hashes

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
    with pytest.raises(Trouble, match="rabbitmqctl delete_queue -p shop dead"):
        refuse_immutable({"queues": [queue]}, found)
    refuse_immutable({"queues": [queue]}, {})


def test_the_diff_says_that_a_password_differs_and_not_how():
    wanted = {"users": [{"name": "shop", "password_hash": "xyz", "tags": []}]}
    diff = shown(wanted, FOUND)
    assert diff["before"] != diff["after"]
    assert "abc" not in str(diff) and "xyz" not in str(diff)


def test_a_user_without_a_password_is_refused():
    definitions = {"users": [{"name": "shop"}]}
    assert with_hashes(definitions, {"shop": "abc"})["users"] == [{"name": "shop", "password_hash": "abc"}]
    with pytest.raises(Trouble, match="user shop has no password"):
        with_hashes(definitions, {"mail": "abc"})


def test_an_entry_without_a_name():
    with pytest.raises(Trouble, match="an entry of policies has no 'name'"):
        differing({"policies": [{"vhost": "shop"}]}, {})
