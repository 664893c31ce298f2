"""What a run with --limit must not take from the hosts that it leaves out: their broker and their result store."""

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import users_left_out

CLUSTER = {"rabbitmq": ["b1", "b2", "b3"], "result_store": ["b1"], "worker": ["w1", "b2"], "web": ["b1"]}
SMALL = {"rabbitmq": ["hub"], "result_store": ["hub"], "worker": ["w1", "w2"], "web": ["hub"]}
ALONE = {group: ["one", "two"] for group in ("rabbitmq", "result_store", "worker", "web")}


@pytest.mark.parametrize(
    ("groups", "host", "run", "broker", "store"),
    [
        (SMALL, "w1", ["w1"], [], []),
        (SMALL, "hub", ["hub", "w1", "w2"], [], []),
        (SMALL, "hub", ["hub"], ["w1", "w2"], ["w1", "w2"]),
        (SMALL, "hub", ["hub", "w2"], ["w1"], ["w1"]),
        (CLUSTER, "b2", ["b2"], ["w1", "b1"], []),
        (CLUSTER, "b1", ["b1"], ["w1", "b2"], ["w1", "b2"]),
        (CLUSTER, "b3", ["b1", "b2", "b3", "w1"], [], []),
        (ALONE, "one", ["one"], [], []),
        (ALONE, "two", ["two"], [], []),
    ],
)
def test_the_hosts_that_use_a_service_of_this_one_and_are_not_in_the_run(groups, host, run, broker, store):
    given = {"rabbitmq_bind": "127.0.0.1"} if groups is ALONE else {}
    known = {
        "groups": groups,
        "hostvars": {name: given for members in groups.values() for name in members},
        "inventory_hostname": host,
        "ansible_play_hosts_all": run,
    }
    assert users_left_out(known, "rabbitmq") == broker
    assert users_left_out(known, "result_store") == store
