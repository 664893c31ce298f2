"""What a run derives from the tasks before: failures, the summary, what is recorded."""

from __future__ import annotations

import getpass
import os

import pytest
from ansible_collections.celery_ops.kit.plugins.action.release import made_of
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.migration import to_ask
from ansible_collections.celery_ops.kit.plugins.plugin_utils.outcome import failure_summary, failures, summary
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor

FAILED = {
    "phase": "web",
    "host": "b",
    "task": "handover",
    "program": "p",
    "reason": "it died.\nmore",
    "release_fault": True,
}
GROUPS = {"worker": ["a", "b"], "web": ["b", "c"], "rabbitmq": ["r"]}
KNOWN = {
    "celery_app_name": "shop", "inventory_hostname": "a", "group_names": ["worker", "web"], "groups": GROUPS,
    "hostvars": {"a": {}, "b": {}, "c": {}, "r": {"__celery_app_failure": FAILED}},
    "ansible_play_hosts": ["a", "b", "c"], "ansible_play_hosts_all": ["a", "b", "c"],
    "celery_app_task_time_limit": 300, "celery_worker_programs": [], "celery_app_broker_url": "amqp://u:p@h//",
    "celery_app_result_backend": "none", "celery_app_environment": {}, "celery_app_secrets": {},
    "celery_app_migrate_host": "a", "celery_app_migrate_command": ["m one", "m two"], "celery_app_seed_command": "s",
    "celery_app_build_commands": [], "celery_app_on_failure": "rollback",
    "celery_web_command": "gunicorn", "celery_web_bind": "127.0.0.1:8000", "celery_app_check_url": "/page",
    "celery_app_secrets_dir": "/home/you/.secrets", "celery_app_tls_verify_clients": False,
    "__celery_app_source": {"id": "0123456789ab", "deployment": "d2"},
}  # fmt: skip


def test_a_failure_on_any_host_of_the_application_counts_and_so_does_a_host_that_is_lost():
    assert failures(KNOWN) == []
    seen = failures(KNOWN | {"hostvars": {**KNOWN["hostvars"], "b": {"__celery_app_failure": FAILED}}})
    assert seen == [FAILED] and failure_summary(seen) == "web on b: it died."
    [lost] = failures(KNOWN | {"ansible_play_hosts": ["a", "b"]})
    assert lost["host"] == "c" and failure_summary([lost]) == "connection on c: the connection to it was lost"
    after_a_hook = {"hostvars": {**KNOWN["hostvars"], "b": {"__celery_app_failure": {}}}}
    assert failures(KNOWN | after_a_hook) == []


def test_where_a_task_failed_that_runs_once_for_all_the_host_on_which_it_did_comes_first():
    beside = FAILED | {"host": "a", "elsewhere": True}
    known = {"a": {"__celery_app_failure": beside}, "b": {"__celery_app_failure": FAILED}, "c": {}, "r": {}}
    assert failures(KNOWN | {"hostvars": known}) == [FAILED, beside]


def line(found: dict, start: str, **variables) -> str:
    [text] = [text for text in summary(KNOWN | {"__celery_app_check": {"found": found}} | variables) if start in text]
    return text.partition(":")[2].strip()


def test_the_summary_says_what_runs():
    found = {"busy": "", "round_trip": 0.3, "tick_age": 4.0}
    assert line(found, "Round trip") == "a task went to the worker and back in 0.3 s"
    assert line(found, "Scheduler") == "its ticks arrive"
    assert line(found, "Page") == "http://127.0.0.1:8000/page"
    assert line(found, "Page", celery_web_bind="[::1]:8000") == "http://[::1]:8000/page"
    assert {line(found, "Page", celery_web_bind=bind) for bind in ("0.0.0.0:8000", "[::]:8000")} == {
        "http://a:8000/page"
    }
    assert "shop runs on a, release 0123456789ab." in summary(KNOWN)
    assert "shop runs on a, release current." in summary(KNOWN | {"__celery_app_source": {}})
    checked = {"__celery_app_source": {}, "__celery_app_check": {"found": {"release": "ba9876543210"}}}
    assert "shop runs on a, release ba9876543210." in summary(KNOWN | checked)


def test_the_summary_says_what_is_missing_or_waits():
    busy = {"busy": "both workers run tasks", "tick": "", "tick_age": None}
    assert line(busy, "Round trip") == "busy: both workers run tasks"
    assert line(busy, "Scheduler") == "not asked"
    assert line({"tick": "no scheduler", "tick_age": None}, "Scheduler") == "no scheduler"
    assert line({}, "Page", celery_web_command="") == "none: no web program"
    assert line({}, "Page", group_names=["worker"]) == "none: no web program"
    assert line({}, "Page", __celery_app_page={"busy": True}).endswith(
        "(answers 202: its task waits for a busy worker)"
    )


@pytest.mark.parametrize(
    ("hosts", "state", "host", "migrates"),
    [
        (["a"], "built", "a", True),
        (["a"], "migrated", "a", False),
        (["a", "b"], "built", "a", False),
        (["a", "b"], "migrated", "a", True),
        (["a", "b"], "migrated", "b", False),
    ],
)
def test_one_host_migrates_and_where_it_is_alone_while_it_builds(hosts, state, host, migrates):
    known = {"ansible_play_hosts_all": hosts, "inventory_hostname": host, "groups": {"worker": hosts}}
    made = made_of(state, KNOWN | known)
    commands = [one["words"][-2:] for one in made.get("migrate", [])] + [words[-1:] for words in made.get("seed", [])]
    assert commands == ([["m", "one"], ["m", "two"], ["s"]] if migrates else [])


@pytest.mark.parametrize("runs", ["", "r1"])
def test_a_new_host_that_migrates_does_not_seed_a_system_that_runs(runs):
    builds = {"a": {"__celery_app_build": {"previous": ""}}, "b": {"__celery_app_build": {"previous": runs}}}
    made = made_of("migrated", KNOWN | {"hostvars": builds, "ansible_play_hosts_all": ["a", "b"]})
    assert len(made["migrate"]) == 2
    assert bool(made["seed"]) is not bool(runs)


ANSWERS = {
    "in service": {"item": "b", "release": "r1"},
    "set up": {"item": "b", "release": ""},
    "not set up": {"item": "b", "failed": True, "msg": "shop was not set up on this host"},
    "down": {"item": "b", "failed": True, "lost": True},
    "unreachable": {"item": "b", "unreachable": True},
}


@pytest.mark.parametrize(
    ("b", "c", "seeds"),
    [
        ("set up", "not set up", True),
        ("in service", "not set up", False),
        ("down", "in service", False),
        ("down", "set up", None),
        ("set up", "unreachable", None),
    ],
)
def test_a_host_that_is_added_by_limit_and_migrates_asks_the_others_before_it_seeds(b, c, seeds):
    alone = KNOWN | {"ansible_play_hosts_all": ["a"]}
    assert not made_of("built", alone).get("seed"), "they are asked first"
    assert to_ask(alone) == ["b", "c"]
    known = alone | {"__celery_app_elsewhere": {"results": [ANSWERS[b], ANSWERS[c] | {"item": "c"}]}}
    if seeds is None:
        with pytest.raises(OperatorError, match=r"shop, .*: [bc], left out by --limit, .*-e celery_app_seed_command="):
            made_of("migrated", known)
        return
    made = made_of("migrated", known)
    assert len(made["migrate"]) == 2
    assert bool(made["seed"]) is seeds


def test_nobody_is_asked_where_nothing_would_be_seeded():
    alone = KNOWN | {"ansible_play_hosts_all": ["a"]}
    built = {**KNOWN["hostvars"], "a": {"__celery_app_build": {"previous": "r1"}}}
    assert to_ask(alone | {"hostvars": built}) == []
    assert to_ask(alone | {"celery_app_seed_command": ""}) == []
    assert to_ask(alone | {"celery_app_migrate_host": "b"}) == []
    each = {name: {"celery_app_migrate_host": name} for name in "abc"}
    assert to_ask(alone | {"hostvars": each}) == [], "each host has data of its own"
    assert to_ask(KNOWN) == []


def test_the_build_is_told_the_options_of_the_programs_that_the_host_is_to_run():
    given = KNOWN | {
        "groups": GROUPS | {"scheduler": ["b"]}, "celery_scheduler_enabled": True,
        "celery_scheduler_options": ["-S", "shop.beat:Mine"],
        "celery_worker_programs": [{"name": "mail", "options": ["--prefetch-multiplier", 4]}, {"name": "default"}],
    }  # fmt: skip
    worker = {"command": "worker", "about": "celery_worker_programs, mail", "words": ["--prefetch-multiplier", "4"]}
    beat = {"command": "beat", "about": "celery_scheduler_options", "words": ["-S", "shop.beat:Mine"]}
    assert made_of("built", given)["command_lines"] == [worker, beat]
    assert made_of("built", given)["has_scheduler"] is True
    assert made_of("built", given)["default_concurrency"] is True
    said = [{"name": "mail", "concurrency": 4}, {"name": "many", "autoscale": "10,2"}]
    assert made_of("built", given | {"celery_worker_programs": said})["default_concurrency"] is False
    assert made_of("built", given | {"celery_scheduler_enabled": False})["command_lines"] == [worker]
    assert made_of("built", given | {"groups": GROUPS})["command_lines"] == [worker]
    assert made_of("built", given | {"group_names": ["web"]})["command_lines"] == [beat]


def test_a_rollback_migrates_nothing_and_activates_its_target():
    back = KNOWN | {"__celery_app_target": {"release": "fff", "deployment": "d1", "previous": "d0"}}
    assert not made_of("built", back | {"ansible_play_hosts_all": ["a"]}).get("migrate")
    made = made_of("active", back | {"__celery_app_seconds": {"all": 3.0}})
    assert (made["deployment"], made["previous"], made["seconds"]) == ("d1", "d0", {"all": 3.0})
    assert set(made_of("failed", back)) == {"actor"}


def test_a_deploy_records_how_long_it_took_and_why_it_failed():
    built = KNOWN | {"__celery_app_build": {"seconds": 1.5}, "__celery_app_seconds": {"web": 2.0}}
    made = made_of("active", built)
    assert (made["deployment"], made["previous"], made["seconds"]) == ("d2", "", {"web": 2.0, "release": 1.5})
    bad = KNOWN | {"hostvars": {**KNOWN["hostvars"], "b": {"__celery_app_failure": FAILED}}}
    made = made_of("failed", bad)
    assert (made["reason"], made["release_fault"], made["taken_back"]) == ("web on b: it died.", True, True)
    assert made_of("failed", bad | {"celery_app_on_failure": "keep"})["taken_back"] is False
    assert made_of("failed", bad | {"__celery_app_restore_failure": "x"})["taken_back"] is False


def test_a_hook_means_the_release_that_is_deployed():
    made = made_of("built", KNOWN)
    assert made["environment_file"].startswith("/etc/shop/env-")
    assert "CELERY_BROKER_URL=amqp://u:p@h//\n" in made["environment_text"]


@pytest.mark.parametrize(
    ("variables", "environment", "who"),
    [
        ({}, {"USER": "anna"}, "anna"),
        ({}, {"USER": "root", "LOGNAME": "root", "SUDO_USER": "anna"}, "anna"),
        ({}, {"LOGNAME": "anna"}, "anna"),
        ({"awx_user_name": "anna"}, {"USER": "awx"}, "anna"),
        ({}, {}, getpass.getuser()),
    ],
    ids=["user", "sudo", "logname", "awx", "nobody"],
)
def test_who_runs_a_playbook_is_known(variables, environment, who, monkeypatch):
    for name in ("SUDO_USER", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert actor(variables) == f"{who}@{os.uname().nodename}"


def test_a_user_whom_the_system_does_not_know_has_a_number(monkeypatch):
    for name in ("SUDO_USER", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert actor({}).partition("@")[0] == "54321"
