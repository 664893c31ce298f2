"""restart: which programs are meant, and what is said of them."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.app_restart import line, outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import to_restart

HOST = {
    "celery_app_name": "shop",
    "inventory_hostname": "w1",
    "group_names": ["worker", "scheduler"],
    "groups": {"worker": ["w1", "w2"]},
    "hostvars": {"w1": {}, "w2": {"celery_worker_programs": [{"name": "mail"}]}},
    "celery_worker_programs": [{"name": "default"}, {"name": "slow"}],
    "celery_scheduler_enabled": True,
    "celery_web_command": "gunicorn",
}


def programs(names, phase="workers"):
    return to_restart({**HOST, "celery_app_restart": names}, phase)


def test_all_programs_of_a_phase_or_those_that_are_named():
    assert programs("") == ["shop-worker-default", "shop-worker-slow", "shop-watchdog"]
    assert programs("slow, scheduler") == ["shop-worker-slow"]
    assert programs(["slow", "scheduler"], "scheduler") == ["shop-scheduler"]
    assert programs("mail") == [], "another host has it"
    assert programs("", "web") == []


def test_a_program_that_no_host_has_is_refused_with_those_that_there_are():
    with pytest.raises(OperatorError, match=r"no program defualt.*Available: default, mail, scheduler, slow, watchdog"):
        programs("default,defualt")


def test_the_outcome_is_a_line():
    done = {"program": "shop-worker-slow", "seconds": {"ready": 2.5}, "draining": ["shop-worker-slow-11111111"]}
    assert line({"w1": [done], "w2": []}) == (
        "restart: shop-worker-slow ready in 2.5 s, the one before still finishes its tasks on w1"
    )
    assert line({"w1": []}) == "restart: no such program on these hosts"
    assert outcome({"w1": [], "w2": []}, check=False)["failed"], "--limit left out the hosts that have it"
    assert not outcome({"w1": [], "w2": [done]}, check=True)["failed"]
