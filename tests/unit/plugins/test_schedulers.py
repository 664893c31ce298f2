"""Which scheduler leads, as status.yml says of several hosts."""

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.leader import groups_of_schedulers, leadership

OLD, NEW = "shop-scheduler-11111111", "shop-scheduler-22222222"


def on(**health):
    return {name: {"health": state} for name, state in zip((OLD, NEW), health.values(), strict=False)}


def test_one_leads_and_the_other_stands_by():
    found = {"one": on(a="ready"), "two": on(a="standby") | {"shop-worker-default-1": {"health": "ready"}}}
    seen = leadership(found)
    assert seen.lines() == [f"leader: {OLD} on one", f"standby: {OLD} on two"]
    assert seen.problems() == []


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
    [said] = leadership(found).problems()
    assert problem in said


def test_a_host_that_was_left_out_is_no_problem():
    seen = leadership({"one": on(a="standby"), "two": None})
    assert seen.lines()[2:] == ["not looked at: two"]
    assert seen.problems() == []


def test_during_a_handover_several_stand_by():
    found = {"one": on(a="ready", b="standby"), "two": on(a="standby", b="standby")}
    assert leadership(found).problems() == []


def test_a_scheduler_that_is_alone_has_no_leader_to_show_and_none_to_miss():
    seen = leadership({"one": on(a="broker away")})
    assert seen.lines() == seen.problems() == []


def test_schedulers_of_one_application_and_broker_belong_together():
    apps = {"one": "shop", "two": "shop", "three": "crm", "hub": ""}
    known = {
        "groups": {"scheduler": ["one", "two", "three"], "rabbitmq": ["hub"]},
        "hostvars": {host: {"celery_app_name": app} for host, app in apps.items()},
        "ansible_play_hosts_all": list(apps),
    }
    assert groups_of_schedulers(known) == [("one", "two"), ("three",)]
