"""usage.py: what the samples of the last day or hour say, and what is advised."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.usage import usage
from ansible_collections.celery_ops.kit.plugins.plugin_utils.report import lines

NAME, GIB = "shop-worker-default", 2**30


def of(active, oldest, slots=4, memory=GIB, free=8 * GIB, samples=60):
    hour = {
        "format": 1, "app": "shop", "every": 10, "times": [*range(samples)],
        "queues": {"shop": {"ready": [0, 7, None], "oldest": [oldest, None], "rate": [1, 2], "unacked": [0]}},
        "programs": {NAME: {"active": [active, None, active], "memory": [memory, None]}, "shop-web": {"memory": [GIB]}},
    }  # fmt: skip
    return usage(hour, {NAME: {"slots": slots, "queues": {"shop": True}}}, free)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"active": 4, "oldest": 60}, "in celery_worker_programs, name: default, write concurrency: 6"),
        ({"active": 4, "oldest": 60, "free": GIB / 4}, "512 MiB more memory, 256 MiB are free: add a host"),
        ({"active": 1, "oldest": 60}, "tasks wait in shop though slots are free"),
        ({"active": 0, "oldest": 0}, "name: default, write concurrency: 1. Keep it"),
        ({"active": 4, "oldest": 1}, ""),
        ({"active": 2, "oldest": 0}, ""),
        ({"active": 0, "oldest": 0, "slots": 1}, ""),
        ({"active": 4, "oldest": 60, "samples": 5}, ""),
    ],
)
def test_advice(given, said):
    found = of(**given)["programs"][NAME]["advice"]
    assert said in found and bool(said) is bool(found)


def test_of_a_day_the_most_that_ran_at_once_counts_and_not_the_most_of_the_means():
    programs = {NAME: {"active": [0.1, 0.2], "most": [1, 3], "memory": [GIB]}}
    day = {"every": 300, "times": [0, 300], "queues": {}, "programs": programs}
    found = usage(day, {NAME: {"slots": 8, "queues": {}}}, GIB)["programs"][NAME]
    assert "write concurrency: 4" in found["advice"]
    assert lines({"w1": usage({**day, "times": [*range(288)]}, {}, 0)})[0] == "w1, the last 24 h:"


def test_what_is_shown():
    assert lines({"w1": of(active=4, oldest=60), "w2": usage({}, {}, 0)}) == [
        "w1, the last 10 min:",
        "  shop-worker-default: memory 1.0 GiB at most; 4 slots, 100 % used, 4 at most",
        "  shop-web: memory 1.0 GiB at most",
        "  queue shop: 1.50 tasks/s here, 7 waiting at most, the oldest 60 s on average",
        "w2: the watchdog has no samples yet. Look at it: ansible-playbook playbooks/status.yml",
        "TO CHANGE:",
        "- w1 shop-worker-default: tasks wait and all slots are used: in celery_worker_programs, name: default, "
        "write concurrency: 6",
    ]
    assert lines({"w1": of(active=2, oldest=0)})[-1] == "Nothing to change"
