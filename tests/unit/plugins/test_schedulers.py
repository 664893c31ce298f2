"""Which scheduler leads, as status.yml says of several hosts."""

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.leader import described, leader

OLD, NEW = "shop-scheduler-11111111", "shop-scheduler-22222222"


def on(**health):
    return {name: {"health": state} for name, state in zip((OLD, NEW), health.values(), strict=False)}


def test_one_leads_and_the_other_stands_by():
    found = {"one": on(a="ready"), "two": on(a="standby") | {"shop-worker-default-1": {"health": "ready"}}}
    assert described(found) == [f"leader: {OLD} on one", f"standby: {OLD} on two", "OK"]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"one": on(a="standby"), "two": on(a="standby")}, "No scheduler leads"),
        ({"one": on(a="ready"), "two": on(a="ready")}, "Two schedulers say that they lead"),
        ({"one": on(a="ready"), "two": {}}, "No scheduler stands by"),
        ({"one": on(a="ready"), "two": on(a="broker away")}, "No scheduler stands by"),
    ],
)
def test_what_is_wrong_is_said(found, problem):
    lines = described(found)
    assert "PROBLEMS:" in lines
    assert any(problem in line for line in lines)


def test_a_host_that_was_left_out_is_no_problem():
    lines = described({"one": on(a="standby"), "two": None})
    assert lines[2:] == ["not looked at: two", "OK"]


def test_during_a_handover_several_stand_by():
    found = {"one": on(a="ready", b="standby"), "two": on(a="standby", b="standby")}
    assert described(found)[-1] == "OK"


def test_a_scheduler_that_is_alone_has_no_leader_to_show():
    assert leader({"inventory_hostname": "one", "groups": {"scheduler": ["one"]}, "hostvars": {}}) == ""
