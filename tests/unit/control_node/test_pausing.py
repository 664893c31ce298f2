"""pause and resume: what is meant, what is refused, and what is said."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.app_pause import all_idle, to_be_idle
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import pausing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of

HOST = {
    "celery_app_name": "shop",
    "inventory_hostname": "w1",
    "groups": {"worker": ["w1", "w2"]},
    "ansible_play_hosts_all": ["w1", "w2"],
    "hostvars": {"w1": {}, "w2": {}},
    "celery_worker_programs": [{"name": "default"}],
    **dict.fromkeys((f"celery_app_pause_{one}" for one in ("queue", "program", "for", "why")), ""),
    "celery_app_pause_scheduler": False,
}
LOOKS = {"w1": {"entries": [], "workers": [{"queues": ["shop", "photos"]}]}}


def host(**variables):
    return {**HOST, **{f"celery_app_pause_{name}": value for name, value in variables.items()}}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [("all", "")]),
        ({"scheduler": "yes"}, [("all", ""), ("scheduler", "")]),
        ({"program": "scheduler"}, [("scheduler", "")]),
        ({"queue": "photos, shop"}, [("queue", "photos"), ("queue", "shop")]),
        ({"program": "default,scheduler"}, [("program", "shop-worker-default"), ("scheduler", "")]),
    ],
)
def test_what_is_meant(variables, expected):
    assert pausing.named(host(**variables)) == expected


@pytest.mark.parametrize("verb", [pausing.named, lambda variables: pausing.refuse_not_paused(variables, {})])
def test_a_guessed_name_of_the_variable_does_not_mean_everything(verb):
    with pytest.raises(OperatorError, match="Write -e celery_app_pause_queue=mail or"):
        verb({**HOST, "celery_app_pause": "mail"})


def test_a_limit_means_the_host():
    assert pausing.named({**HOST, "ansible_play_hosts_all": ["w1"]}) == [("host", "w1")]


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("90", 90), ("30m", 1800), ("30min", 1800), ("2h", 7200), ("1d", 86400)]
)
def test_a_time_is_written_as_people_do(text, seconds):
    assert pausing.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["0", "2 hours", "-5", "31d", "h"])
def test_another_time_is_refused_with_the_fix(text):
    with pytest.raises(OperatorError, match=r"celery_app_pause_for is .*such as 90s, 30min, 2h or 1d"):
        pausing.seconds_of(text)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    pausing.refuse_unknown_queues(host(queue="photos"), LOOKS)
    down = {**host(queue="mail"), "hostvars": {"w1": {}, "w2": {"celery_worker_programs": [{"queues": ["mail"]}]}}}
    pausing.refuse_unknown_queues(down, {"w1": {"entries": [], "workers": []}})
    with pytest.raises(OperatorError, match=r"a queue photo\. .*Available: photos, shop"):
        pausing.refuse_unknown_queues(host(queue="photo"), LOOKS)
    with pytest.raises(OperatorError, match="no program defualt"):
        pausing.named(host(program="defualt"))
    with pytest.raises(OperatorError, match="web takes no tasks"):
        pausing.named(host(program="web"))


def test_a_worker_program_may_be_called_web():
    called = {**host(program="web"), "celery_worker_programs": [{"name": "web"}]}
    assert pausing.named(called) == [("program", "shop-worker-web")]


def test_what_is_not_paused_can_not_be_resumed():
    with pytest.raises(OperatorError, match=r"queue photos is not paused .* Paused: everything"):
        pausing.refuse_not_paused(host(queue="photos"), {"w1": {"entries": [{"what": "all", "name": ""}]}})
    pausing.refuse_not_paused(host(), {"w1": {"entries": []}})


def test_the_outcome_is_a_line():
    worker = {"program": "shop-worker-default", "active": 2, "oldest": 3600.0}
    paused = {"entries": [{"what": "queue", "name": "photos", "until": 7200.0}], "workers": [worker], "late": []}
    line, late = pausing.outcome("pause", {"w1": paused, "w2": {**paused, "workers": [], "late": ["shop-x"]}})
    assert line == (
        "pause: paused is queue photos until 1970-01-01 02:00:00 UTC on w1, w2. Still running: "
        "shop-worker-default on w1 2 tasks, the oldest since 1970-01-01 01:00:00 UTC."
    )
    assert late == ["shop-x on w2"]


def test_that_nothing_is_paused_is_said_of_the_hosts_that_were_asked():
    nothing = {"w1": {"entries": [], "workers": [], "late": []}}
    assert pausing.outcome("resume", nothing)[0].startswith("resume: paused is nothing. ")
    line, _ = pausing.outcome("resume", nothing, all_hosts=False)
    assert line.startswith("resume: paused is nothing on w1 (the run is about no other host). ")


def test_hosts_that_did_not_answer_are_named():
    nothing = {"w1": {"entries": [], "workers": [], "late": []}}
    line, _ = pausing.outcome("resume", nothing, silent=["w2"])
    assert line.startswith("resume: paused is nothing on w1. ")
    assert line.endswith(" Nothing was changed on w2, see above: run it again when that is fixed.")


def test_a_host_that_is_down_or_failed_tells_nothing():
    known = {
        "w1": {"x": {"entries": []}}, "w2": {"x": {"unreachable": True, "msg": "no route"}},
        "w3": {"x": {"failed": True, "msg": "not deployed"}}, "w4": {"x": {"skipped": True}}, "w5": {},
    }  # fmt: skip
    assert results_of({"ansible_play_hosts_all": list(known), "hostvars": known}, "x") == {"w1": {"entries": []}}


def test_nothing_is_migrated_while_a_task_runs_or_may_run_on_a_host_that_had_a_deployment():
    builds = {
        "w1": {"deployment_before": "20261101"},
        "w2": {"deployment_before": ""},
        "w3": {"failed": True},
        "w4": {},
    }
    known = {host: {"__celery_app_build": build} for host, build in builds.items()}
    hosts = to_be_idle({"ansible_play_hosts_all": list(known), "hostvars": known})
    assert hosts == ["w1", "w3", "w4"]
    idle = {host: {"late": []} for host in hosts}
    assert not all_idle(idle, hosts, 60).get("failed")
    late = all_idle({**idle, "w3": {"late": ["shop-x"]}}, hosts, 60)
    assert late["msg"] == "After 60 s tasks still run: shop-x on w3. Nothing was migrated." and late["failed"]
    unknown = all_idle({"w1": {"late": []}}, hosts, 60)
    assert unknown["msg"] == "It is not known whether tasks still run on w3, w4. Nothing was migrated."
