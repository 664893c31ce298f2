"""The roles in somebody else's project: each with its inputs alone, on a host that has nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.control import ROOT, Run, install_environment, run
from support.host import Host

pytestmark = pytest.mark.timeout(600)
SHOP, CRM = (
    {"name": name, "password": f"{name}-password", "database": number} for number, name in ((1, "shop"), (2, "crm"))
)
BROKER_KEYS = ("name", "password")


class Project:
    """A company's own project for a host: its ansible.cfg, its inventory, its playbook."""

    def __init__(self, directory: Path, host: Host) -> None:
        self.directory, self.host = directory, host
        (directory / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {ROOT}/collections\n")
        self.put_into("servers")

    def put_into(self, *groups: str) -> None:
        """Write the inventory: the host in these groups."""
        there = {"hosts": {self.host.name: {"ansible_connection": "community.docker.docker"}}}
        (self.directory / "hosts.json").write_text(json.dumps(dict.fromkeys(groups, there)))

    def play(self, role: str, *tasks_from: str, facts: bool = True, **variables: Any) -> Run:
        """Use one role in a play, or some of its task files."""
        tasks = [
            {"name": file, "ansible.builtin.import_role": {"name": f"celery_ops.kit.{role}", "tasks_from": file}}
            for file in tasks_from or ["main"]
        ]
        play = {"name": "Ours", "hosts": "servers", "gather_facts": facts, "vars": variables, "tasks": tasks}
        (self.directory / "ours.yml").write_text(json.dumps([play]))
        return run(["ansible-playbook", "-i", "hosts.json", "ours.yml", "--diff"], self.directory, {"COLUMNS": "160"})

    def changed(self, role: str, *tasks_from: str, **variables: Any) -> tuple[int, str]:
        """Use one role, which has to succeed; return how many tasks changed something, and all that was said."""
        done = self.play(role, *tasks_from, **variables)
        assert done.rc == 0, f"{role}: {done.text[-6000:]}"
        return done.changed[self.host.name], done.text

    def redis(self, application: dict[str, Any], command: str) -> str:
        """What Redis answers to an application in its own database."""
        name, password, database = (application[key] for key in ("name", "password", "database"))
        client = f"redis-cli --user {name} --no-auth-warning -n {database}"
        return self.host.ask(f"REDISCLI_AUTH={password} {client} {command} 2>&1")


def broker(*applications: dict[str, Any]) -> dict[str, Any]:
    """The input of rabbitmq."""
    return {"rabbitmq_applications": [{key: each[key] for key in BROKER_KEYS} for each in applications]}


EACH = [
    ("rabbitmq", broker(SHOP)),
    ("result_store", {"result_store_applications": [SHOP]}),
    ("supervisor", {"supervisor_stop_timeout": 5400}),
]


@pytest.fixture(scope="module")
def project(alone, tmp_path_factory) -> Project:
    """The project, which has used each role once, without facts: a role gathers those that it needs."""
    project = Project(tmp_path_factory.mktemp("company"), alone)
    for role, inputs in EACH:
        assert SHOP["password"] not in project.changed(role, facts=False, **inputs)[1]
    return project


def test_each_works(project, alone):
    assert "Success" in alone.output(f"rabbitmqctl authenticate_user shop {SHOP['password']}")
    assert alone.output("rabbitmqctl -q list_queues -p shop name type").split()[-2:] == ["shop.dead", "quorum"]
    assert "guest" not in alone.output("rabbitmqctl -q list_users")
    assert project.redis(SHOP, "SET a 1") == "OK"
    assert alone.output("supervisorctl pid").isdigit()
    assert alone.output("systemctl show supervisor --property TimeoutStopUSec") == "TimeoutStopUSec=1h 30min"


@pytest.mark.parametrize(("role", "inputs"), EACH)
def test_a_second_run_changes_nothing(project, role, inputs):
    changed, text = project.changed(role, **inputs)
    assert changed == 0, text[-3000:]


def test_an_application_that_is_added_or_removed_costs_the_others_nothing(project, alone):
    before = alone.services()
    waiting = ["docker", "exec", "--env", f"REDISCLI_AUTH={SHOP['password']}", alone.name, "redis-cli"]
    options = ["--user", "shop", "-n", "1", "BLPOP", "later", "0"]
    client = subprocess.Popen([*waiting, *options], stdout=subprocess.PIPE, text=True)
    try:
        for role, inputs in (
            ("rabbitmq", broker(SHOP, CRM)),
            ("result_store", {"result_store_applications": [SHOP, CRM]}),
        ):
            changed, text = project.changed(role, **inputs)
            assert changed == 1 and CRM["password"] not in text, text[-3000:]
        assert project.redis(CRM, "SET a 2") == "OK"
        assert "Success" in alone.output(f"rabbitmqctl authenticate_user crm {CRM['password']}")
        for role in ("rabbitmq", "result_store"):
            changed, text = project.changed(role, "uninstall", **{f"{role}_applications": [{"name": "crm"}]})
            assert changed == 1, text[-3000:]
        assert "WRONGPASS" in project.redis(CRM, "GET a")
        assert "crm" not in alone.output("rabbitmqctl -q list_vhosts; rabbitmqctl -q list_users")
        assert project.redis(SHOP, "GET a") == "1"
        assert client.poll() is None, "its connection was closed"
        project.redis(SHOP, "RPUSH later now")
        assert client.communicate(timeout=20)[0].split() == ["later", "now"]
    finally:
        client.kill()
        client.wait()
    assert alone.services() == before


def test_preflight_says_that_it_is_not_used_by_itself(project, alone):
    done = project.play("preflight")
    assert (done.rc, done.changed[alone.name]) == (2, 0)
    assert "The role preflight is a part of the kit's playbooks" in done.words


DEPLOY = ("main", "lock", "release", "workers", "finish", "outcome", "check")


def test_an_application_whose_broker_and_result_store_are_somebody_elses_is_deployed(project, alone):
    inputs = {
        "celery_app_name": "notes",
        "celery_app_source": str(ROOT / "tests/apps/shop"),
        "celery_app_module": "shop",
        "celery_app_requirements": "pyproject.toml",
        "celery_app_broker_url": f"amqp://shop:{SHOP['password']}@127.0.0.1/shop",
        "celery_app_result_backend": f"redis://shop:{SHOP['password']}@127.0.0.1/{SHOP['database']}",
        **install_environment(),
    }
    refused = project.play("celery", **inputs)
    assert (refused.rc, refused.changed[alone.name]) == (2, 0)
    assert f"Write in the inventory: worker: {{hosts: {{{alone.name}: }}}}" in refused.words

    project.put_into("servers", "worker")
    assert SHOP["password"] not in project.changed("celery", *DEPLOY, **inputs)[1]
    notes = Host(alone.name, "notes")
    before = notes.running()
    assert sorted(name.rpartition("-")[0] for name in before) == ["notes-watchdog", "notes-worker-default"]
    changed, text = project.changed("celery", *DEPLOY, **inputs)
    assert (changed, notes.running()) == (0, before), text[-3000:]

    uninstall = ("uninstall_programs", "uninstall")
    project.changed("celery", *uninstall, **inputs)
    assert notes.running() == {}
    assert alone.ask("ls -d /srv/notes /etc/notes /var/lib/notes; getent passwd notes") == ""
