"""scale: what is refused, and the line that is to be edited."""

from __future__ import annotations

import json
import shlex
from datetime import datetime

import pytest
from ansible_collections.celery_ops.kit.plugins.action.app_scale import (
    advice,
    end_of,
    files_of,
    is_done,
    numbers,
    places,
    refuse_different_hosts,
    rush_hour,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError

HOST = {
    "celery_app_name": "shop",
    "inventory_hostname": "w1",
    "group_names": ["worker"],
    "groups": {"worker": ["w1"]},
    "hostvars": {"w1": {}},
    "celery_worker_programs": [
        {"name": "default", "concurrency": 2},
        {"name": "photos", "autoscale": "10,2"},
        {"name": "slow", "pool": "solo"},
    ],
}
MAIL = {"name": "mail", "concurrency": 1}
WORKER = {"program": "shop-worker-default", "state": "ready", "slots": 2, "active": 1}
LOOKS = {"w1": {"workers": [WORKER, {**WORKER, "state": "draining", "slots": 9}]}}


def entry(text):
    [(found, number)] = numbers({**HOST, "celery_app_scale": text})
    return found, number


@pytest.mark.parametrize("text", ["", "default", "default=", "default=0", "default=-1", "default=10000", "=3", "x y=2"])
def test_what_is_no_number_of_a_program_is_refused(text):
    with pytest.raises(OperatorError, match=r"celery_app_scale.*Nothing was changed"):
        entry(text)


@pytest.mark.parametrize(("text", "says"), [("scheduler=2", "not an entry of"), ("slow=2", "solo, runs one task")])
def test_what_has_no_number_is_refused_with_what_has_one(text, says):
    with pytest.raises(OperatorError, match=r"Available: default, photos$"):
        entry(text)
    with pytest.raises(OperatorError, match=says):
        entry(text)


def test_a_program_of_other_hosts_is_found():
    others = {"groups": {"worker": ["w1", "w2"]}, "hostvars": {"w1": {}, "w2": {"celery_worker_programs": [MAIL]}}}
    assert numbers({**HOST, **others, "celery_app_scale": "mail=3"}) == [(MAIL, 3)]


def test_the_line_to_edit_and_what_runs_now():
    said = advice(*entry("default=6"), HOST, LOOKS, [])
    assert said.startswith("scale: default has 1 of 2 slots busy on w1. Nothing was changed")
    assert "Write concurrency: 6 in the entry default of celery_worker_programs" in said
    assert said.endswith("To undo it after a rush hour: write concurrency: 2 there again, and the same command")
    photos = advice(*entry("photos=20"), HOST, LOOKS, [])
    assert "Write autoscale: 20,2 in the entry photos" in photos
    assert "write autoscale: 10,2 there again" in photos
    plain = advice({"name": "default"}, 6, HOST, LOOKS, [])
    assert "take concurrency: 6 out again" in plain


NOON = datetime(2026, 11, 26, 12)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", None),
        ("18:00", datetime(2026, 11, 26, 18)),
        ("09:30", datetime(2026, 11, 27, 9, 30)),
        ("2026-11-28 07:00", datetime(2026, 11, 28, 7)),
        ("2026-11-28T07:00", datetime(2026, 11, 28, 7)),
    ],
)
def test_a_rush_hours_end_is_a_moment_to_come(text, end):
    assert end_of(text, NOON) == end


@pytest.mark.parametrize(
    "text", ["soon", "25:00", "2026-11-26 11:00", "2026-11-28T07:00+02:00", "6", "18:00Z", "18:00+02:00", "2026-11-28"]
)
def test_what_is_no_moment_to_come_is_refused(text):
    with pytest.raises(OperatorError, match=r"celery_app_scale_until is .* by the clock of the control node, such as"):
        end_of(text, NOON)


def test_a_rush_hour_is_a_deploy_with_the_numbers_and_a_timed_one_without(monkeypatch):
    monkeypatch.setenv("ANSIBLE_CONFIG", "/x/ansible.cfg")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    wanted = numbers({**HOST, "celery_app_scale": "default=6,photos=20"})
    _, now, _, timer, _ = rush_hour(wanted, HOST, datetime(2026, 11, 26, 18))
    *words, extra = shlex.split(now)
    assert words == ["ansible-playbook", "playbooks/deploy.yml", "-e"]
    assert json.loads(extra)["celery_worker_programs"] == [
        {"name": "default", "concurrency": 6},
        {"name": "photos", "autoscale": "20,2"},
        {"name": "slow", "pool": "solo"},
    ]
    assert shlex.split(timer) == [
        *("systemd-run", "--on-calendar=2026-11-26 18:00:00", "--working-directory=$PWD", "--setenv=PATH=$PATH"),
        *("--setenv=HOME=$HOME", "--setenv=ANSIBLE_CONFIG=$ANSIBLE_CONFIG", "ansible-playbook", "playbooks/deploy.yml"),
    ]


def test_a_rush_hour_of_hosts_with_different_programs_is_refused():
    mine, others = HOST["celery_worker_programs"], [{"name": "mail"}]
    hosts = {"w1": {"celery_worker_programs": mine}, "w2": {"celery_worker_programs": mine}}
    fleet = {**HOST, "groups": {"worker": ["w1", "w2"]}, "hostvars": hosts}
    refuse_different_hosts(fleet)
    with pytest.raises(OperatorError, match="the hosts have different celery_worker_programs"):
        refuse_different_hosts({**fleet, "hostvars": {**hosts, "w2": {"celery_worker_programs": others}}})


def test_what_is_so_already_is_nothing_to_do_or_to_be_deployed():
    assert "The inventory says 2: nothing to do" in advice(*entry("default=2"), HOST, LOOKS, [])
    behind = {"w1": {"workers": [{**WORKER, "slots": 4}]}}
    assert "The inventory says 2 already. Type: " in advice(*entry("default=2"), HOST, behind, [])
    down = advice(*entry("default=2"), HOST, {"w1": {"workers": []}}, [])
    assert "no worker that is ready. The inventory says 2 already. Look: ansible-playbook playbooks/status.yml" in down


@pytest.mark.parametrize(
    ("entry", "done"),
    [
        ({"name": "default"}, True),  # by the role's default
        ({"name": "default", "concurrency": "2"}, True),  # as -e and a template have it
        ({"name": "default", "concurrency": 3}, False),
        ({"name": "default", "autoscale": "2,1"}, False),
    ],
)
def test_what_is_so_already_is_a_success(entry, done):
    assert is_done(entry, 2, HOST, LOOKS) is done
    assert ("nothing to do" in advice(entry, 2, HOST, LOOKS, [])) is done


def test_the_line_is_found_in_the_files_of_the_inventory(tmp_path):
    variables = tmp_path / "group_vars/all.yml"
    variables.parent.mkdir()
    variables.write_text(
        "---\n- name: default\ncelery_worker_programs:\n  - name: other\n  - {name: default, queues: []}\n"
    )
    (tmp_path / "hosts.yml").write_text("all: {}\n")
    (tmp_path / "group_vars/blob").write_bytes(b"\xff\xfe")
    found = list(files_of([str(tmp_path)]))
    assert {path.name for path in found} == {"all.yml", "hosts.yml", "blob"}
    [place] = places("default", found)
    assert place.endswith("all.yml:5")
    assert next(files_of([str(tmp_path / "hosts.yml")])) == tmp_path / "hosts.yml"
