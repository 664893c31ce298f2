"""The roles for services in somebody else's project: each with its inputs alone, on a host that has nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
HOST = "celery-ops-alone"
SHOP, CRM = (
    {"name": name, "password": f"{name}-password", "database": number} for number, name in ((1, "shop"), (2, "crm"))
)
BROKER_KEYS = ("name", "password")
SERVICES = r"beam\.smp|redis-server|supervisord"


class Project:
    """A company's own project: its ansible.cfg, its inventory, its playbook."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {ROOT}/collections\n")
        there = {HOST: {"ansible_connection": "community.docker.docker"}}
        (directory / "hosts.json").write_text(json.dumps({"servers": {"hosts": there}}))

    def play(self, role: str, tasks_from: str = "main", facts: bool = True, **variables: Any) -> str:
        """Use one role in a play, and return what was said; the run has to succeed."""
        task = {
            "name": role,
            "ansible.builtin.import_role": {"name": f"celery_ops.kit.{role}", "tasks_from": tasks_from},
        }
        play = {"name": "Ours", "hosts": "servers", "gather_facts": facts, "vars": variables, "tasks": [task]}
        (self.directory / "ours.yml").write_text(json.dumps([play]))
        words = ["ansible-playbook", "-i", "hosts.json", "ours.yml", "--diff"]
        environment = os.environ | {"ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"), "COLUMNS": "160"}
        done = subprocess.run(words, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        self.rc, text = done.returncode, done.stdout + done.stderr
        self.changed = int(re.search(rf"^{HOST}\s.*changed=(\d+)", text, re.M)[1])
        return text


def on_host(script: str) -> str:
    """What a script prints on the host."""
    done = subprocess.run(["docker", "exec", HOST, "sh", "-c", script], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def broker(*applications: dict[str, Any]) -> dict[str, Any]:
    """The input of rabbitmq."""
    return {"rabbitmq_applications": [{key: each[key] for key in BROKER_KEYS} for each in applications]}


def redis(application: dict[str, Any], command: str) -> str:
    """What Redis answers to an application in its own database."""
    name, password, database = (application[key] for key in ("name", "password", "database"))
    return on_host(f"REDISCLI_AUTH={password} redis-cli --user {name} --no-auth-warning -n {database} {command}")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The project, which has used each role once, without facts: a role gathers those that it needs."""
    project = Project(tmp_path_factory.mktemp("company"))
    for role, inputs in (
        ("rabbitmq", broker(SHOP)),
        ("result_store", {"result_store_applications": [SHOP]}),
        ("supervisor", {"supervisor_stop_timeout": 5400}),
    ):
        text = project.play(role, facts=False, **inputs)
        assert project.rc == 0, f"{role}: {text[-6000:]}"
        assert SHOP["password"] not in text
    return project


def test_each_works(project):
    assert "Success" in on_host(f"rabbitmqctl authenticate_user shop {SHOP['password']}")
    assert on_host("rabbitmqctl -q list_queues -p shop name type").split()[-2:] == ["shop.dead", "quorum"]
    assert "guest" not in on_host("rabbitmqctl -q list_users")
    assert redis(SHOP, "SET a 1") == "OK"
    assert on_host("supervisorctl pid").isdigit()
    assert on_host("systemctl show supervisor --property TimeoutStopUSec") == "TimeoutStopUSec=1h 30min"


@pytest.mark.parametrize(
    ("role", "inputs"),
    [
        ("rabbitmq", broker(SHOP)),
        ("result_store", {"result_store_applications": [SHOP]}),
        ("supervisor", {"supervisor_stop_timeout": 5400}),
    ],
)
def test_a_second_run_changes_nothing(project, role, inputs):
    text = project.play(role, **inputs)
    assert (project.rc, project.changed) == (0, 0), text[-3000:]


def test_an_application_that_is_added_or_removed_costs_the_others_nothing(project):
    before = on_host(f"pgrep '{SERVICES}'")
    waiting = ["docker", "exec", "--env", f"REDISCLI_AUTH={SHOP['password']}", HOST, "redis-cli", "--user", "shop"]
    with subprocess.Popen([*waiting, "-n", "1", "BLPOP", "later", "0"], stdout=subprocess.PIPE, text=True) as client:
        for role, inputs in (
            ("rabbitmq", broker(SHOP, CRM)),
            ("result_store", {"result_store_applications": [SHOP, CRM]}),
        ):
            text = project.play(role, **inputs)
            assert (project.rc, project.changed) == (0, 1), text[-3000:]
            assert CRM["password"] not in text
        assert redis(CRM, "SET a 2") == "OK"
        assert "Success" in on_host(f"rabbitmqctl authenticate_user crm {CRM['password']}")
        for role in ("rabbitmq", "result_store"):
            text = project.play(role, "uninstall", **{f"{role}_applications": [{"name": "crm"}]})
            assert (project.rc, project.changed) == (0, 1), text[-3000:]
        assert "WRONGPASS" in redis(CRM, "GET a")
        assert "crm" not in on_host("rabbitmqctl -q list_vhosts; rabbitmqctl -q list_users")
        assert redis(SHOP, "GET a") == "1"
        assert client.poll() is None, "its connection was closed"
        redis(SHOP, "RPUSH later now")
        assert client.communicate(timeout=20)[0].split() == ["later", "now"]
    assert on_host(f"pgrep '{SERVICES}'") == before


def test_preflight_says_that_it_is_not_used_by_itself(project):
    text = " ".join(project.play("preflight").split())
    assert (project.rc, project.changed) == (2, 0)
    assert "The role preflight is a part of the kit's playbooks" in text
