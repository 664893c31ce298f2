"""pause and resume: what is meant, what is refused, and what is said."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import pausing

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


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("90", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)])
def test_a_time_is_written_as_people_do(text, seconds):
    assert pausing.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["0", "2 hours", "-5", "31d", "h"])
def test_another_time_is_refused_with_the_fix(text):
    with pytest.raises(OperatorError, match=r"celery_app_pause_for is .*such as 90s, 30m, 2h or 1d"):
        pausing.seconds_of(text)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    pausing.refuse_unknown_queues(host(queue="photos"), LOOKS)
    with pytest.raises(OperatorError, match=r"a queue photo\. .*There is photos, shop"):
        pausing.refuse_unknown_queues(host(queue="photo"), LOOKS)
    with pytest.raises(OperatorError, match="no program defualt"):
        pausing.named(host(program="defualt"))
    with pytest.raises(OperatorError, match="web takes no tasks"):
        pausing.named(host(program="web"))


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
