"""Somebody else's project: the kit is an installed collection, the inventory and the playbook are their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")
PLAYBOOK = [{"name": "The kit's part", "import_playbook": "celery_ops.kit.site"}]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """An empty directory, into which the collection is built and installed."""
    here = tmp_path_factory.mktemp("a project of theirs")
    (here / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = collections\ninterpreter_python = {sys.executable}\n"
    )
    galaxy(here, "build", "--output-path", here, ROOT)
    [archive] = here.glob("celery_ops-kit-*.tar.gz")
    galaxy(here, "install", archive, "--collections-path", here / "collections", "--offline", "--no-deps")
    there = {group: {"hosts": {"here": None}} for group in GROUPS}
    hosts = {"all": {"hosts": {"here": {"ansible_connection": "local"}}, "children": there}}
    (here / "hosts.yml").write_text(json.dumps(hosts))
    (here / "ours.yml").write_text(json.dumps(PLAYBOOK))
    return here


def galaxy(here, *words):
    run(here, "ansible-galaxy", "collection", *words).check_returncode()


def run(here, *words):
    environment = {**os.environ, "ANSIBLE_CONFIG": str(here / "ansible.cfg"), "COLUMNS": "400"}
    return subprocess.run([BIN / words[0], *words[1:]], cwd=here, env=environment, capture_output=True, text=True)


def test_it_holds_what_a_deploy_needs_and_nothing_that_git_ignores(project):
    kit = project / "collections/ansible_collections/celery_ops/kit"
    assert (kit / "runtime/celery_ops/settings.py").is_file()
    assert (kit / "runtime/celery_ops/layout.py").is_file()
    assert (kit / "templates/supervisor/program.conf.j2").is_file()
    names = {path.name for path in kit.rglob("*")}
    assert not names & {".venv", ".cache", ".secrets", "molecule", "db.sqlite3"}


@pytest.mark.parametrize("playbook", ["ours.yml", "celery_ops.kit.site", "celery_ops.kit.deploy"])
def test_a_playbook_of_theirs_and_the_kits_own_check_the_inventory_first(project, playbook):
    wrong = json.dumps({"celery_app_rollout": ["half"]})
    done = run(project, "ansible-playbook", "-i", "hosts.yml", playbook, "-e", wrong)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "The inventory has one mistake; nothing was changed on any host." in said, said
    assert "celery_app_rollout is" in said


def test_what_to_type_is_what_they_typed(project):

    expression = "{{ 'rollback' | celery_ops.kit.command }}"
    play = [{"name": "Say it", "hosts": "all", "gather_facts": False, "tasks": [{"debug": {"msg": expression}}]}]
    (project / "say.yml").write_text(json.dumps(play))
    done = run(project, "ansible-playbook", "-i", "hosts.yml", "say.yml")
    assert "ansible-playbook -i hosts.yml celery_ops.kit.rollback" in done.stdout, done.stdout + done.stderr
