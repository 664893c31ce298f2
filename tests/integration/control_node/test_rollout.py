"""celery_app_rollout: how many worker hosts a deploy hands over at a time, as the play's serial has it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
[WORKERS] = [play for play in yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text()) if "serial" in play]
SAY = [{"name": "Batch", "ansible.builtin.debug": {"msg": "batch {{ ansible_play_batch | length }}"}, "run_once": True}]


@pytest.mark.parametrize("group", ["worker", "celery_worker"])
@pytest.mark.parametrize(("rollout", "batches"), [(None, [1, 4]), (["40%"], [2, 2, 1]), ([1, 2, "100%"], [1, 2, 2])])
def test_the_hosts_of_each_step(tmp_path, group, rollout, batches):
    hosts = {group: {"hosts": dict.fromkeys("abcde")}}
    given = {"celery_app_rollout": rollout} if rollout else {}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": hosts, "vars": given}}))
    (tmp_path / "play.yml").write_text(json.dumps([{**WORKERS, "become": False, "tasks": SAY}]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    assert [int(number) for number in re.findall(r"batch (\d+)", done.stdout)] == batches, done.stdout + done.stderr
