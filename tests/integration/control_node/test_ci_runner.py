"""The control node as CI systems have it: a checkout that anybody may write to, spaces in its path, no home, no user.

Nothing here touches a host: a bad inventory is refused before, and what is packed stays on the control node.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SITE = "playbooks/site.yml"
GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")
MISTAKE = {"celery_app_hooks": {"no_such_hook": "hook.yml"}}
# What a first run does on the control node, and nothing else.
FIRST_RUN = """
- name: First run
  hosts: all
  gather_facts: false
  tasks:
    - name: Inventory
      ansible.builtin.import_role: {name: celery_ops.kit.preflight, tasks_from: inventory}
    - name: Variables
      ansible.builtin.import_role: {name: celery_ops.kit.celery, tasks_from: hook}
      vars: {__celery_hook: none}
    - name: Pack
      celery_ops.kit.release_source:
        source: "{{ kit }}/app"
        version: HEAD
        requirements: "{{ celery_app_requirements }}"
        exclude: "{{ celery_app_source_exclude }}"
        runtime: "{{ kit }}/runtime"
        cache: "{{ celery_app_cache_dir }}"
      register: packed
    - name: Say
      ansible.builtin.debug: {msg: "{{ [packed.archive, celery_app_broker_password] }}"}
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def checkout(public) -> Path:
    """A copy of the kit that anybody may write to."""
    target = public / "a path with spaces/kit"
    for part in ("Makefile", "ansible.cfg", "requirements.txt", "app", "inventories", "playbooks", "plugins", "roles"):
        copy = shutil.copy if (ROOT / part).is_file() else shutil.copytree
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, target / part)
    shutil.copytree(ROOT / "runtime", target / "runtime")
    shutil.copytree(ROOT / "templates", target / "templates")
    shutil.copytree(ROOT / "collections", target / "collections", symlinks=True)
    (target / ".venv/bin").mkdir(parents=True)
    # No link: make asks access(2), which knows no capabilities, and the checkout may be in a directory of mode 0700.
    command = target / ".venv/bin/ansible-playbook"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(str(BIN / "ansible-playbook"))} "$@"\n')
    command.chmod(0o755)
    target.chmod(0o777)
    return target


@pytest.fixture
def inventory(public) -> Path:
    """An inventory of this machine, in a path with spaces too."""
    directory = public / "my inventory"
    shutil.copytree(ROOT / "inventories/local/group_vars", directory / "group_vars")
    here = {"hosts": {"here": None}}
    groups = dict.fromkeys(GROUPS, here)
    hosts = {"all": {"hosts": {"here": {"ansible_connection": "local"}}, "children": groups}}
    (directory / "hosts.yml").write_text(json.dumps(hosts))
    directory.chmod(0o777)
    return directory


def bad(inventory: Path) -> Path:
    """The inventory with a mistake in it."""
    (inventory / "group_vars/all/zz.yml").write_text(json.dumps(MISTAKE))
    return inventory


# A user whom the system does not know; may go through the directories of root's in which Python and the tests are.
UNKNOWN = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
UNKNOWN += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody who is unknown")


def without_home(**more: str) -> dict[str, str]:
    """The environment of a container whose user has no name and no home that can be written to."""
    return {"PATH": f"{BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1", "HOME": "/dev/null", **more}


def run(words: list[str], environment: dict[str, str], directory: str | Path = "/") -> subprocess.CompletedProcess[str]:
    """Run a command in another directory than the checkout."""
    return subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    """The kit's own check of the inventory ran, found the one mistake, and nothing of the control node's."""
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "The inventory has one mistake; nothing was changed on any host." in text, text
    assert "celery_app_hooks has" in text, text


def test_make_works_in_a_world_writable_checkout_without_a_home(checkout, inventory):
    make = ["make", "-C", str(checkout), "-o", ".venv/tools", "up", f"INVENTORY={bad(inventory)}"]
    assert_refused(run(make, without_home()))
    assert not (checkout / "~").exists()


@as_root
def test_make_works_for_a_user_whom_the_system_does_not_know(checkout, inventory):
    environment = {name: value for name, value in without_home().items() if name != "HOME"}
    make = ["make", "-C", str(checkout), "-o", ".venv/tools", "up", f"INVENTORY={bad(inventory)}"]
    assert_refused(run([*UNKNOWN, *make], environment))
    assert not (checkout / "~").exists()


def test_ansible_cfg_named_in_the_environment_works_from_another_directory(checkout, inventory, tmp_path):
    environment = without_home(ANSIBLE_CONFIG=str(checkout / "ansible.cfg"), ANSIBLE_HOME=str(tmp_path / "ansible"))
    done = run(["ansible-playbook", "-i", str(bad(inventory)), str(checkout / SITE)], environment, tmp_path)
    assert_refused(done)
    assert [path.name for path in tmp_path.iterdir()] == ["ansible"]


def test_every_playbook_is_found_whole_from_another_directory(checkout, inventory, tmp_path):
    environment = without_home(ANSIBLE_CONFIG=str(checkout / "ansible.cfg"), ANSIBLE_HOME=str(tmp_path / "ansible"))
    playbooks = [str(path) for path in sorted((checkout / "playbooks").glob("*.yml"))]
    done = run(["ansible-playbook", "-i", str(inventory), "--syntax-check", *playbooks], environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_first_runs_at_once_make_one_release_and_one_set_of_passwords(checkout, inventory, tmp_path):
    playbook = tmp_path / "first.yml"
    playbook.write_text(FIRST_RUN)
    environment = without_home(ANSIBLE_CONFIG=str(checkout / "ansible.cfg"), ANSIBLE_HOME=str(tmp_path / "ansible"))
    words = ["ansible-playbook", "-i", str(inventory), str(playbook), "-e", json.dumps({"kit": str(checkout)})]
    runs = [
        subprocess.Popen(words, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(3)
    ]
    said = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], "\n=====\n".join(said)
    answers = {tuple(re.findall(r"^ +- (.+)$", text.partition("TASK [Say]")[2], re.M)) for text in said}
    assert len(answers) == 1, answers
    assert len(next(iter(answers))) == 2, said
