"""What broker and result store are restarted for: others may use them, so for nothing that they have read already."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.host_state import wanted

BROKER, MAPPER, COOKIE = "__rabbitmq_conf", "__rabbitmq_epmd_dropin", "__rabbitmq_cookie"
NODES = [{"name": "rabbit@a", "address": "10.0.0.1"}]


@pytest.mark.parametrize(
    ("changed", "installed", "nodes", "restarts_for"),
    [
        ([], [], [], []),
        ([BROKER], [], [], [BROKER]),
        ([MAPPER], [], [], [MAPPER]),
        ([COOKIE], [], [], []),  # which only a cluster reads
        ([BROKER, MAPPER], ["rabbitmq-server"], [], []),  # read in its first start
        ([BROKER], [], NODES, []),  # a cluster has one node restarted after another
    ],
)
def test_a_broker_that_is_alone_and_was_there_before_is_restarted_for_its_files(
    evaluate, changed, installed, nodes, restarts_for
):
    state = {"paths": [evaluate(name) for name in changed], "packages": installed, "unread": []}
    found = evaluate("__rabbitmq_restart_for", __rabbitmq_state=state, rabbitmq_cluster_nodes=nodes)
    assert found == [evaluate(name) for name in restarts_for]


def test_a_broker_is_restarted_for_what_an_interrupted_run_has_written(evaluate):
    state = {"paths": [], "packages": [], "unread": ["rabbitmq-server"]}
    assert evaluate("__rabbitmq_restart_for", __rabbitmq_state=state) == ["rabbitmq-server"]


def test_sentinel_reads_its_certificate_only_when_it_starts(evaluate):
    assert evaluate("__result_store_tls_files") == []
    files = evaluate("__result_store_tls_files", result_store_tls_certificate="/tmp/cert.pem")
    assert files == [f"/etc/redis/celery-ops-tls/{name}.pem" for name in ("ca", "cert", "key")]


CONF, SKIPPED = "/etc/redis/celery-ops.conf", {"changed": False, "skipped": True}


@pytest.mark.parametrize(
    ("restarts", "known"),
    [
        (False, {}),
        (True, {"paths": [CONF]}),
        (False, {"paths": ["/var/lib/redis/mine"]}),  # the directory of its data
        (True, {"state": {"paths": ["/etc/redis/redis.conf"], "started": []}}),
        (True, {"state": {"paths": [], "started": [], "unread": ["redis-server"]}}),  # of a run before
        (True, {"users": {"restart": True}}),
        (False, {"users": {"restart": False}}),
        (True, {"cleaned": {"changed": True}}),
        (False, {"paths": [CONF], "state": {"paths": [], "started": ["redis-server"]}}),
        (False, {"paths": [CONF], "start": {"changed": True}}),
        (True, {"paths": [CONF], "check": True}),
        (False, {"paths": [CONF], "check": True, "packages": ["redis-server"]}),  # there is none yet
    ],
)
def test_a_redis_that_was_not_started_just_now_is_restarted_for_what_it_reads_at_its_start(evaluate, restarts, known):
    registered = {name: known.get(name, SKIPPED) for name in ("state", "start", "users", "cleaned")}
    installed = {"paths": known.get("paths", []), "packages": known.get("packages", [])}
    found = evaluate(
        "__result_store_restarts",
        **{f"__result_store_{name}": value for name, value in (registered | {"installed": installed}).items()},
        result_store_instance="mine",
        ansible_check_mode="check" in known,
    )
    assert found is restarts


@pytest.mark.parametrize(("manager", "kind"), [("systemd", "service"), ("sysvinit", "process")])
def test_a_redis_of_systemd_or_of_an_init_script_is_asked_whether_it_has_read_its_configuration(
    evaluate, manager, kind
):
    steps = evaluate("__result_store_run_steps", ansible_facts={"service_mgr": manager})
    taken = [step for step in wanted(steps) if "reads" in step]
    assert [(step[kind], step["reads"]) for step in taken] == [("redis-server", [CONF])]


def test_node_exporter_reads_the_drop_ins_of_its_address_and_of_each_application_when_it_starts(evaluate):
    directory = "/etc/systemd/system/prometheus-node-exporter.service.d"
    names = ["celery-ops.conf", "celery-ops-shop.conf", "celery-ops-crm.conf"]
    found = evaluate("__monitoring_exporter_files", monitoring_apps=["shop", "crm"])
    assert found == [f"{directory}/{name}" for name in names]
