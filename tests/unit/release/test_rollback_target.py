"""Where a rollback goes: once for all hosts, to a deployment, and never further than was meant."""

import pytest
from ansible_collections.celery_ops.kit.plugins.action.rollback_target import choose
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError


def record(name, previous, release, live_at):
    return {"id": name, "previous": previous, "release": release, "environment": f"env-{name}", "live_at": live_at}


ONE, TWO, THREE = record("one", "", "r1", 1.0), record("two", "one", "r1", 2.0), record("three", "two", "r2", 3.0)


def history(*records, current=None, releases=None, draft=None, last=None):
    current = current or (records[-1]["id"] if records else "")
    built = releases if releases is not None else {one["release"]: "good" for one in records}
    return {
        "current": current,
        "release": next((one["release"] for one in records if one["id"] == current), ""),
        "records": {one["id"]: one for one in records},
        "releases": {
            name: {"status": status, "good_at": float(name[1:]), "requirements": "requirements.txt"}
            for name, status in built.items()
        },
        "draft": draft or {},
        "last": last or {},
    }


def test_it_goes_to_the_deployment_before_with_its_settings():
    target = choose({"a": history(ONE, TWO)})
    assert (target.deployment, target.release) == ("one", "r1"), "a change of settings alone is a deployment"
    assert choose({"a": history(ONE, TWO, THREE)}).deployment == "two"
    assert choose({"a": history(ONE, TWO, THREE, current="two")}).deployment == "one", "and then further back"


def test_a_clock_that_was_set_back_does_not_make_an_older_deployment_the_newest():
    three = {**THREE, "live_at": 0.5}
    # On b the last deploy did not go live.
    assert choose({"a": history(ONE, TWO, three), "b": history(ONE, TWO)}).deployment == "two"
    four = record("four", "three", "r1", 0.6)
    assert choose({"a": history(ONE, TWO, three, four, current="three")}, wanted="r1").deployment == "four"


def test_a_host_that_was_added_gets_the_release_and_does_not_stop_the_fleet():
    late = record("three", "", "r2", 3.5)
    target = choose({"old": history(ONE, TWO, THREE), "new": history(late)})
    assert (target.deployment, target.release, target.previous) == ("two", "r1", "one")
    assert (target.without_record, target.without_release, target.peer) == (["new"], ["new"], "old")
    assert target.requirements == "requirements.txt"


def test_a_scheduler_without_the_lease_is_known_by_its_host():
    lone = ONE | {"lone_scheduler": True}
    target = choose({"a": history(lone, TWO), "b": history(ONE, TWO)})
    assert (target.deployment, target.lone_schedulers) == ("one", ["a"])
    assert choose({"a": history(lone, TWO, THREE)}).lone_schedulers == []


def test_a_host_that_was_added_by_a_run_that_changed_nothing_else_follows_the_others():
    own = record("late", "", "r2", 9.0)
    target = choose({"old": history(ONE, TWO, THREE), "other": history(ONE, TWO, THREE), "new": history(own)})
    assert (target.deployment, target.without_record) == ("two", ["new"])
    # One deployment later it still has a past of its own.
    four, its_four = record("four", "three", "r3", 10.0), record("four", "late", "r3", 10.0)
    for histories in (
        {"new": history(own, its_four), "old": history(ONE, TWO, THREE, four), "other": history(ONE, TWO, THREE, four)},
        {"old": history(ONE, TWO, THREE, four), "other": history(ONE, TWO, THREE, four), "new": history(own, its_four)},
    ):
        assert choose(histories).deployment == "three"


@pytest.mark.parametrize("added", [["new"], ["new", "newer"]])
@pytest.mark.parametrize("turned", [False, True])
def test_hosts_that_were_added_do_not_outvote_the_one_that_was_there(added, turned):
    own, four = record("late", "", "r2", 9.0), record("four", "three", "r3", 10.0)
    histories = {name: history(own, record("four", "late", "r3", 10.0)) for name in added}
    histories["old"] = history(ONE, TWO, THREE, four)
    target = choose(dict(reversed(histories.items())) if turned else histories)
    assert (target.deployment, target.without_record) == ("three", list(added)[:: -1 if turned else 1])


def test_a_host_without_the_record_that_has_the_release_builds_nothing():
    target = choose({"old": history(ONE, TWO, THREE), "new": history(THREE, releases={"r1": "good", "r2": "good"})})
    assert (target.without_record, target.without_release) == (["new"], [])


def test_hosts_of_different_histories_go_to_one_deployment():
    target = choose({"a": history(ONE, TWO, THREE), "b": history(ONE, TWO)})
    assert (target.deployment, target.without_record) == ("two", [])


@pytest.mark.parametrize("begun", [["workers"], []])
def test_after_a_deploy_that_stopped_half_way_it_is_the_one_that_is_still_current(begun):
    histories = {"a": history(ONE, TWO, draft={"id": "three", "begun": begun}), "b": history(ONE, TWO)}
    assert choose(histories).deployment == ("two" if begun else "one")


def test_a_rollback_that_was_interrupted_goes_on_to_where_it_went():
    draft = {"id": "x", "action": "rollback", "target": "one", "begun": ["producers"]}
    histories = {"a": history(ONE, TWO, THREE, draft=draft), "b": history(ONE, TWO, THREE)}
    assert choose(histories).deployment == "one"


def test_a_first_deploy_that_did_not_end_has_no_way_back():
    with pytest.raises(OperatorError, match=r"no deployment before it.*playbooks/deploy.yml"):
        choose({"a": history(draft={"id": "x", "begun": ["workers"]})})


def test_after_a_deploy_that_was_taken_back_it_asks_how_far():
    last = {"action": "deploy", "outcome": "failed: web on a; taken back", "to": "r9", "at": "now"}
    with pytest.raises(OperatorError, match=r"(?s)r9, now\) failed and was rolled back.*celery_app_release=r1"):
        choose({"a": history(ONE, TWO, THREE), "b": history(ONE, TWO, THREE, last=last)})
    assert choose({"a": history(ONE, TWO, THREE, last=last)}, "r1").deployment == "two"


FAILED = {"action": "deploy", "outcome": "failed: web on a; taken back", "to": "r9", "at": "2026-11-27T10:00:00+0000"}
LATER = {"action": "deploy", "outcome": "good", "to": "r2", "at": "2026-11-27T12:30:00+0200"}


def test_a_host_that_was_down_in_the_last_deploy_does_not_speak_for_the_others():
    down, up = history(ONE, TWO, last=FAILED), history(ONE, TWO, THREE, last=LATER)
    assert choose({"a": down, "b": up}).deployment == "two", "that deploy was good"
    assert choose({"b": up, "a": down}).deployment == "two"
    missed = history(ONE, TWO, THREE, last={**LATER, "at": "2026-11-27T09:00:00+0000"})
    with pytest.raises(OperatorError, match=r"r9, 2026-11-27T10:00:00\+0000\) failed and was rolled back"):
        choose({"b": missed, "a": down})


def test_what_was_left_half_way_on_it_is_no_reason_to_stay():
    draft = {"id": "late", "begun": ["workers"], "began": 2.5}
    down, up = history(ONE, TWO, draft=draft), history(ONE, TWO, THREE)
    assert choose({"a": down, "b": up}).deployment == "two"
    activated_on_b = {**draft, "id": "three"}
    assert choose({"a": history(ONE, TWO, draft=activated_on_b), "b": up}).deployment == "three"
    begun_since = {**draft, "began": 3.5}
    assert choose({"a": history(ONE, TWO, draft=begun_since), "b": up}).deployment == "three"


def test_a_release_that_is_asked_for_comes_with_its_last_settings():
    assert choose({"a": history(ONE, TWO, THREE)}, "r1").deployment == "two"
    assert choose({"a": history(ONE, TWO, THREE)}, "r2").deployment == "three"
    target = choose({"a": history(THREE, releases={"r1": "good", "r2": "good"}), "b": history(THREE)}, "r1")
    assert (target.deployment, target.release, target.without_release) == ("", "r1", ["b"])
    with pytest.raises(OperatorError, match=r"celery_app_release is r9: no host has it. Releases: r1 \(good\)"):
        choose({"a": history(ONE)}, "r9")


def test_what_an_older_kit_deployed_goes_back_by_its_releases():
    adopted = record("before-records", "", "r2", "")
    releases = {"r1": "good", "r2": "good", "r3": "failed"}
    assert choose({"a": history(adopted, releases=releases)}).release == "r1"
    none = history(releases=releases)
    assert choose({"a": {**none, "release": "r2"}}).release == "r1"


def test_the_first_deployment_of_all_has_nothing_before_it():
    with pytest.raises(OperatorError, match=r"no earlier deployment.*r1 \(good\)\.$"):
        choose({"a": history(ONE)})
    with pytest.raises(OperatorError, match=r"r2 \(good\).*rollback.yml -e celery_app_release=<release>$"):
        choose({"a": history(ONE, releases={"r1": "good", "r2": "good"})})
