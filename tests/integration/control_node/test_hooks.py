"""A hook runs on all hosts at once, each with its own environment."""

import json
import re
import subprocess

from support.control import ROOT

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: celery_ops.kit.celery, tasks_from: hook}
      vars: {__celery_hook: after_release}
"""
HOOK = """
- name: Say
  ansible.builtin.command: printenv CELERY_OPS_ENV_FILE
- name: Say again
  ansible.builtin.command: printenv CELERY_OPS_ENV_FILE
"""


def test_hosts_run_a_hook_together_though_their_environments_differ(tmp_path):
    (tmp_path / "hook.yml").write_text(HOOK)
    (tmp_path / "play.yml").write_text(PLAY)
    hosts = {
        name: {
            "ansible_connection": "local",
            "__celery_app_build": {"hook_environment": {"CELERY_OPS_ENV_FILE": f"/etc/shop/env-{name}"}},
        }
        for name in ("one", "two")
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    hooks = json.dumps({"celery_app_hooks": {"after_release": str(tmp_path / "hook.yml")}})
    done = subprocess.run(
        ["ansible-playbook", "-v", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml", "-e", hooks],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^TASK .*: Say again\]", done.stdout, re.M)) == 1, done.stdout
    assert {name: done.stdout.count(f"stdout: /etc/shop/env-{name}") for name in hosts} == {"one": 2, "two": 2}


def test_a_hook_beside_the_playbook_is_no_task_file_of_the_role_with_the_same_name(tmp_path):
    (tmp_path / "check.yml").write_text("- ansible.builtin.debug: {msg: the operator's own}\n")
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"one": {"ansible_connection": "local"}}}}))
    hooks = json.dumps({"celery_app_hooks": {"after_release": "check.yml"}})
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml", "-e", hooks],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the operator's own" in done.stdout
