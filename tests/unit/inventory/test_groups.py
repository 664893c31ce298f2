"""The kit's groups where a company has groups of these names already."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.lookup.hosts import LookupModule
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import own_groups, runs_nothing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables
from support.inputs import FLEET, input_of

OURS = {f"celery_{group}": hosts for group, hosts in FLEET.items()}
COMPANY = {**OURS, "web": ["shop1", "shop2"], "petct": ["hub", "one", "two"]}


@pytest.mark.parametrize(
    ("groups", "pattern"), [(FLEET, "worker:web"), (COMPANY, "celery_worker:celery_web"), ({}, "worker:web")]
)
def test_plays_go_to_our_groups_and_not_to_others_of_the_same_names(groups, pattern):
    assert LookupModule().run(["worker", "web"], {"groups": groups}) == [pattern]


def test_a_group_of_the_plain_name_is_somebody_elses_where_ours_have_the_prefix():
    assert own_groups(COMPANY) == FLEET
    assert own_groups(FLEET | {"petct": ["hub"]}) == FLEET | {"petct": ["hub"]}
    variables = Variables({"groups": COMPANY, "group_names": ["celery_web", "petct", "web"]}, lambda value: value)
    assert variables["groups"]["web"] == ["hub"]
    assert variables["group_names"] == ["web"]
    shop = Variables({"groups": COMPANY, "group_names": ["web"]}, lambda value: value)
    assert shop["group_names"] == []


def test_inputs_are_the_same_under_either_name(tmp_path):
    for groups in (FLEET, COMPANY):
        assert input_of(tmp_path, "rabbitmq_bind", groups, "hub") == "0.0.0.0"
        assert input_of(tmp_path, "services", groups, "hub") == ["rabbitmq", "result_store", "supervisor"]
    assert input_of(tmp_path, "services", COMPANY, "shop1") == []


def test_a_host_in_none_of_the_applications_groups_would_run_nothing():
    variables = {"inventory_hostname": "web7", "group_names": ["servers", "rabbitmq"]}
    assert runs_nothing(variables).startswith("web7 is in none of the groups worker, scheduler, web")
    assert "Write in the inventory: worker: {hosts: {web7: }}" in runs_nothing(variables)
    assert runs_nothing({**variables, "group_names": ["scheduler"]}) == ""
