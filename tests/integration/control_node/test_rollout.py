"""celery_app_rollout: how many worker hosts a deploy hands over at a time, as the play's serial has it."""

import re

import pytest
import yaml
from support.control import ROOT, run_plays

[WORKERS] = [play for play in yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text()) if "serial" in play]
SAY = [{"name": "Batch", "ansible.builtin.debug": {"msg": "batch {{ ansible_play_batch | length }}"}, "run_once": True}]


@pytest.mark.parametrize("group", ["worker", "celery_worker"])
@pytest.mark.parametrize(("rollout", "batches"), [(None, [1, 4]), (["40%"], [2, 2, 1]), ([1, 2, "100%"], [1, 2, 2])])
def test_the_hosts_of_each_step(tmp_path, group, rollout, batches):
    hosts = {group: {"hosts": dict.fromkeys("abcde")}}
    given = {"celery_app_rollout": rollout} if rollout else {}
    inventory = {"all": {"children": hosts, "vars": given}}
    said = run_plays(tmp_path, [{**WORKERS, "become": False, "tasks": SAY}], inventory).text
    assert [int(number) for number in re.findall(r"batch (\d+)", said)] == batches, said
