"""What a node of a cluster says of it, and what its disk holds."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, rabbitmq_cluster
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import (
    State,
    additions,
    cookie_is,
    details_of,
    distribution,
    members_of,
    state_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import nodes
from ansible_collections.celery_ops.kit.plugins.module_utils.status import look
from ansible_collections.celery_ops.kit.plugins.modules import rabbitmq_restart
from ansible_collections.celery_ops.kit.plugins.modules.rabbitmq_cluster import advice
from ansible_collections.celery_ops.kit.plugins.modules.rabbitmq_node_info import has_user
from ansible_collections.celery_ops.kit.plugins.modules.rabbitmq_restart import Restart, newer, started

NODES = ["rabbit@a", "rabbit@b", "rabbit@c"]


def test_the_answer_of_cluster_status():
    state = state_of(
        {
            "disk_nodes": ["rabbit@b", "rabbit@a"],
            "ram_nodes": [],
            "running_nodes": ["rabbit@a"],
            "partitions": {"rabbit@a": ["rabbit@b"]},
            "alarms": [{"resource": "disk", "node": "rabbit@a", "type": "resource_limit"}, "file_descriptor_limit"],
            "feature_flags": [
                {"name": "quorum_queue", "state": "enabled", "stability": "stable"},
                {"name": "stream_filtering", "state": "disabled", "stability": "stable"},
                {"name": "khepri_db", "state": "disabled", "stability": "experimental"},
            ],
        }
    )
    assert state.members == ["rabbit@a", "rabbit@b"]
    assert state.apart == ["rabbit@a"], "one of two has no majority"
    assert state.alarms == ["file_descriptor_limit", "rabbit@a disk resource_limit"]
    assert state.disabled_flags == ["stream_filtering"]


@pytest.mark.parametrize(
    ("state", "faults"),
    [
        (State(NODES, NODES), []),
        (State(NODES, NODES[:2]), ["rabbit@c does not run"]),
        (State(NODES[:2], NODES[:2]), ["rabbit@c is not a member"]),
        (State([*NODES, "rabbit@x"], [*NODES, "rabbit@x"]), ["rabbit@x is a member and not in the inventory"]),
        (
            State(NODES, NODES[:2], ["rabbit@c"]),
            [
                "network partition: rabbit@c is apart from the others and stays so; type on its host: "
                "systemctl restart rabbitmq-server"
            ],
        ),
    ],
)
def test_what_differs_from_the_inventory(state, faults):
    assert state.faults(NODES) == faults
    if faults:
        assert faults[0] in advice(faults, 120)
        assert len(advice(faults, 120)) > len(faults[0]) + 120 or "type" in faults[0], "with what to do"


@pytest.mark.parametrize(
    ("partitions", "smaller"),
    [
        ({}, []),
        ({"rabbit@a": ["rabbit@c"], "rabbit@b": ["rabbit@c"]}, ["rabbit@c"]),
        ({"rabbit@a": ["rabbit@c", "rabbit@b"], "rabbit@b": ["rabbit@c"]}, ["rabbit@c"]),
        ({"rabbit@c": ["rabbit@a", "rabbit@b"]}, ["rabbit@c"]),
    ],
)
def test_the_smaller_side_of_a_partition(partitions, smaller):
    assert state_of({"disk_nodes": NODES, "partitions": partitions}).apart == smaller


def hexed(text: str) -> str:
    return text.encode().hex().upper()


def test_the_answer_of_erlang_that_is_broken_into_lines():
    vhost, queue = hexed("shop"), hexed("odd; name")
    said = (
        f'"tick rabbit@a 8;tick rabbit@b {{ongoing_change_to,8}};tick rabb"\n "it@c {{badrpc,nodedown}};short {vhost} '
        f'{queue} rabbit@a,rabbit@b;"\n'
    )
    details = details_of(said)
    assert details.ticktimes == {"rabbit@a": 8, "rabbit@b": 8, "rabbit@c": 0}
    assert details.short_queues == {("shop", "odd; name"): ["rabbit@a", "rabbit@b"]}
    assert details_of('"tick rabbit@a 60;"').short_queues == {}


def test_each_queue_gets_three_members():
    short = {("shop", "one"): ["rabbit@a"], ("shop", "two"): ["rabbit@a", "rabbit@c"]}
    assert additions(short, NODES) == {"rabbit@b": [("shop", "one"), ("shop", "two")], "rabbit@c": [("shop", "one")]}
    five = [*NODES, "rabbit@d", "rabbit@e"]
    assert additions({("shop", "one"): ["rabbit@a"]}, five) == {
        "rabbit@b": [("shop", "one")],
        "rabbit@c": [("shop", "one")],
    }


def test_what_the_disk_holds(tmp_path):
    assert nodes(tmp_path) == members_of("rabbit@a", tmp_path) == []
    for name in ("rabbit@a", "rabbit@a-plugins-expand", "rabbit@localhost"):
        (tmp_path / name).mkdir()
    (tmp_path / "rabbit@a.pid").touch()
    assert nodes(tmp_path) == ["rabbit@a", "rabbit@localhost"]
    assert members_of("rabbit@a", tmp_path) == ["rabbit@a"]
    text = "{[rabbit@a,'rabbit@web-1'],\n ['rabbit@web-1']}.\n"
    (tmp_path / "rabbit@a/cluster_nodes.config").write_text(text)
    assert members_of("rabbit@a", tmp_path) == ["rabbit@a", "rabbit@web-1"]


def test_a_node_whose_metadata_khepri_holds_is_asked_or_known_by_the_configuration(monkeypatch, tmp_path):
    (tmp_path / "rabbit@a").mkdir()
    (tmp_path / "rabbit@a-feature_flags").write_text("[feature_flags_v2,\n khepri_db,\n quorum_queue].\n")
    # As Mnesia had left it.
    (tmp_path / "rabbit@a/cluster_nodes.config").write_text("{[rabbit@a,rabbit@old],[rabbit@a]}.\n")
    monkeypatch.setattr(rabbitmq_cluster, "state", lambda: State(["rabbit@a", "rabbit@b"], ["rabbit@a"]))
    assert members_of("rabbit@a", tmp_path) == ["rabbit@a", "rabbit@b"]

    def down():
        raise OperatorError("rabbitmqctl cluster_status: it does not run")

    monkeypatch.setattr(rabbitmq_cluster, "state", down)
    configuration = tmp_path / "90-celery-ops.conf"
    monkeypatch.setattr(rabbitmq, "CONFIGURATION", configuration)
    assert members_of("rabbit@a", tmp_path) == ["rabbit@a"]
    names = ("rabbit@a", "rabbit@b", "rabbit@c")
    lines = (f"cluster_formation.classic_config.nodes.{number} = {name}\n" for number, name in enumerate(names, 1))
    configuration.write_text("".join(lines))
    assert members_of("rabbit@a", tmp_path) == list(names)
    (tmp_path / "rabbit@localhost").mkdir()
    (tmp_path / "rabbit@localhost-feature_flags").write_text("[khepri_db].\n")
    assert members_of("rabbit@localhost", tmp_path) == ["rabbit@localhost"], "of another one"


def test_status_looks_at_the_cluster_of_a_node_that_is_alone_in_the_inventory(monkeypatch, tmp_path):
    (tmp_path / "rabbit@a").mkdir()
    config = tmp_path / "rabbit@a/cluster_nodes.config"
    config.write_text("{[rabbit@a],[rabbit@a]}.\n")
    monkeypatch.setattr(look.rabbitmq, "is_configured", lambda: True)
    assert look.node_of_several(tmp_path) == []
    config.write_text("{[rabbit@a,rabbit@b],[rabbit@a]}.\n")
    assert look.node_of_several(tmp_path) == ["rabbit@a"]
    monkeypatch.setattr(look.rabbitmq, "is_configured", lambda: False)
    assert look.node_of_several(tmp_path) == [], "somebody else's"


def test_the_user_of_the_package_is_there_or_not():
    assert has_user("root")
    assert not has_user("nobody-of-this-name")


def test_the_cookie_is_compared_and_not_shown(tmp_path):
    file = tmp_path / "cookie"
    assert cookie_is("secret", file) == "none"
    file.write_text("secret\n")
    assert (cookie_is("secret", file), cookie_is("other", file)) == ("same", "other")


def test_files_that_are_newer_than_the_broker(tmp_path):
    file = tmp_path / "a.conf"
    file.touch()
    changed = file.stat().st_mtime
    files = [str(file), str(tmp_path / "none")]
    assert newer(files, changed - 1) == [str(file)]
    assert newer(files, changed + 1) == []


def test_what_a_node_speaks_with_others_is_what_it_was_started_with(tmp_path):
    file = tmp_path / "rabbitmq-env.conf"
    started = ["beam.smp", "-s", "rabbit", "boot", "-proto_dist", "inet_tls"]
    assert distribution(None, file) == {"runs": False, "tls": False}
    assert distribution(started, file) == {"runs": True, "tls": True}
    file.write_text('CTL_ERL_ARGS="-proto_dist inet_tls -ssl_dist_optfile /etc/x"\n')
    assert distribution(None, file) == {"runs": False, "tls": True}
    assert distribution(started[:4], file) == {"runs": True, "tls": False}


@pytest.mark.parametrize(
    ("state", "pid", "process", "active", "begun"),
    [
        ("active", "7", "20000000", "32000000", 20.0),
        ("activating", "7", "40000000", "32000000", 40.0),  # again: it was active before
        ("activating", "7", "40000000", "0", 40.0),  # for the first time
        ("activating", "0", "40000000", "32000000", 0.0),  # systemd waits before the next attempt
        ("failed", "0", "40000000", "32000000", 0.0),
        ("deactivating", "7", "40000000", "32000000", 0.0),
    ],
)
def test_a_service_runs_since_its_process_was_started(state, pid, process, active, begun):
    said = {"ActiveState": state, "MainPID": pid}
    times = {"ExecMainStartTimestampMonotonic": process, "ActiveEnterTimestampMonotonic": active}
    assert started({**said, **times}) == begun


def test_a_socket_runs_since_it_is_active():
    assert started({"ActiveState": "active", "ActiveEnterTimestampMonotonic": "5000000"}) == 5.0
    assert started({"ActiveState": "inactive", "ActiveEnterTimestampMonotonic": "5000000"}) == 0.0
    assert started({}) == 0.0


@pytest.mark.parametrize(("packages", "enables"), [(["rabbitmq-server"], True), ([], False)])
def test_a_broker_that_is_alone_enables_the_feature_flags_of_the_version_that_it_was_upgraded_to(
    monkeypatch, packages, enables
):
    told = []
    lone = {"disk_nodes": ["rabbit@a"], "running_nodes": ["rabbit@a"]}
    monkeypatch.setattr(rabbitmq_restart.cluster, "members_of", lambda node: [node])
    monkeypatch.setattr(rabbitmq_restart.cluster, "state", lambda: state_of(lone))
    monkeypatch.setattr(rabbitmq_restart.cluster, "ctl", lambda *words, **_: told.append(words))
    monkeypatch.setattr(rabbitmq_restart, "apt", lambda *_: "")
    monkeypatch.setattr(rabbitmq_restart, "run", lambda *words, **_: told.append(words) or (0, ""))
    Restart("rabbit@a", 5, has_systemd=True, packages=packages).run(epmd=False)
    assert [words[-2] for words in told[:2]] == ["stop", "start"]
    assert (("enable_feature_flag", "all") in told) == enables
