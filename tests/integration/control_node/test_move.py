"""A move to another broker, as far as the control node refuses it before a host changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("hosts", "refused"), [(["one", "two"], True), (["one"], False)])
def test_several_schedulers_are_refused_as_each_broker_would_have_a_leader(tmp_path, hosts, refused):
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    groups = {"rabbitmq": ["new"], "result_store": ["new"], "worker": ["one"], "scheduler": hosts}
    children = {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()}
    app = {"celery_app_name": "digest", "celery_app_source": str(ROOT / "tests/apps/digest")}
    there = {name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate(("old", "new", "one", "two"), 1)}
    (tmp_path / "hosts.yml").write_text(
        json.dumps({"all": {"hosts": there, "children": children, "vars": {**app, **local}}})
    )
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", tmp_path / "hosts.yml", ROOT / "playbooks/rabbitmq_move.yml"),
            *("-e", "rabbitmq_move_from=nowhere", "-e", f"celery_app_secrets_dir={tmp_path}/secrets"),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, said
    assert ("one, two are schedulers, of which one leads by a lease in the broker" in said) == refused, said
    assert ("rabbitmq_move_from is nowhere: it has to be" in said) == (not refused), "what comes next"
