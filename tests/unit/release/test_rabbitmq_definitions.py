"""What counts as a difference between wanted definitions and what a broker exports."""

from rabbitmq_definitions import differing

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
