"""scale: what is refused, and the line that is to be edited."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.app_scale import advice, files_of, numbers, places
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
WORKER = {"program": "shop-worker-default", "state": "ready", "slots": 2, "active": 1}
LOOKS = {"w1": {"workers": [WORKER, {**WORKER, "state": "draining", "slots": 9}]}}


def entry(text):
    [(found, number)] = numbers({**HOST, "celery_app_scale": text})
    return found, number


@pytest.mark.parametrize("text", ["", "default", "default=", "default=0", "default=-1", "default=10000", "=3", "x y=2"])
def test_what_is_no_number_of_a_program_is_refused(text):
    with pytest.raises(OperatorError, match=r"celery_app_scale.*Nothing was changed"):
        entry(text)


@pytest.mark.parametrize(("text", "says"), [("scheduler=2", "no entry of"), ("slow=2", "solo, runs one task")])
def test_what_has_no_number_is_refused(text, says):
    with pytest.raises(OperatorError, match=says):
        entry(text)


def test_the_line_to_edit_and_what_runs_now():
    said = advice(*entry("default=6"), HOST, LOOKS, [])
    assert said.startswith("scale: default has 1 of 2 slots busy on w1. Nothing was changed")
    assert "Write concurrency: 6 in the entry default of celery_worker_programs" in said
    assert said.endswith("To go back after a rush hour: write concurrency: 2 there again, and the same command")
    photos = advice(*entry("photos=20"), HOST, LOOKS, [])
    assert "Write autoscale: 20,2 in the entry photos" in photos
    assert "write autoscale: 10,2 there again" in photos
    plain = advice({"name": "default"}, 6, HOST, LOOKS, [])
    assert "take concurrency: 6 out again" in plain


def test_what_is_so_already_is_nothing_to_do_or_to_be_deployed():
    assert "The inventory says 2: nothing to do" in advice(*entry("default=2"), HOST, LOOKS, [])
    behind = {"w1": {"workers": [{**WORKER, "slots": 4}]}}
    assert "The inventory says 2 already. Type: " in advice(*entry("default=2"), HOST, behind, [])


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
