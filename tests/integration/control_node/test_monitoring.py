"""The role monitoring in check mode, on a host that has no broker yet: it says what it would change."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BROKER = Path("/usr/sbin/rabbitmq-plugins")
PLAY = """
- name: Metrics of the broker
  hosts: one
  gather_facts: false
  tasks:
    - name: Monitoring
      ansible.builtin.include_role: {name: celery_ops.kit.monitoring}
      vars: {monitoring_rabbitmq: true, monitoring_node_exporter: false, monitoring_apps: [shop]}
"""


@pytest.mark.skipif(BROKER.exists(), reason="there is a RabbitMQ on this machine")
def test_check_mode_needs_no_broker(tmp_path):
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: {ansible_connection: local}}}\n")
    words = ["ansible-playbook", "-i", "hosts.yml", "play.yml", "--check"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^one +: ok=\d+ +changed=1 ", done.stdout, re.M), done.stdout
