"""Flower's virtualenv: whatever root's umask, for its user to read; and what pip is given is on no command line."""

from __future__ import annotations

import os

import pytest
import yaml
from support.control import ROOT, Run, run_plays

TOKEN = "glpat-0123456789abcdef"
PIP = """#!/bin/sh
umask > "{seen}"
env >> "{seen}"
ps -eo args >> "{ps}"
echo "No matching distribution" >&2
exit {rc}
"""


def installed(tmp_path, rc: int) -> Run:
    """Run the role's tasks that make the virtualenv, as root with a umask of 077, with a pip of the test's own."""
    tasks = yaml.safe_load((ROOT / "roles/flower/tasks/install.yml").read_text())
    first = next(number for number, task in enumerate(tasks) if "Find the virtualenv" in task["name"])
    find, make, *rest = [{key: value for key, value in task.items() if key != "notify"} for task in tasks[first:]]
    make["ansible.builtin.command"]["argv"] = make["ansible.builtin.command"]["argv"].replace(
        "'--clear',", "'--clear', '--without-pip',"
    )
    text = PIP.format(seen=tmp_path / "seen", ps=tmp_path / "ps", rc=rc)
    pip = {"ansible.builtin.copy": {"content": text, "dest": f"{tmp_path}/opt/venv/bin/pip", "mode": "0755"}}
    environment = {"PIP_INDEX_URL": f"https://ci:{TOKEN}@index/it's", "PIP_RETRIES": 2} if rc == 0 else {}
    given_input = {"ansible.builtin.assert": {"that": "__flower_environment | length > 0"}}
    given = {"__flower_opt": f"{tmp_path}/opt", "__flower_lock": "x", "flower_install_environment": environment}
    play = {
        "hosts": "all",
        "gather_subset": ["!all", "!min", "python"],
        "vars_files": [str(ROOT / "roles/flower/vars/main.yml")],
        "tasks": [{"block": [find, make, pip, given_input, *rest], "vars": given}],
    }
    before = os.umask(0o077)
    try:
        return run_plays(
            tmp_path, [play], {"all": {"hosts": {"here": {"ansible_connection": "local"}}}}, ANSIBLE_VERBOSITY="3"
        )
    finally:
        os.umask(before)


def test_its_user_can_read_it_and_a_token_is_on_no_command_line(tmp_path):
    (tmp_path / "opt/venv").mkdir(parents=True)
    done = installed(tmp_path, 0)
    assert done.rc == 0, done.text
    made = [path for path in (tmp_path / "opt/venv").rglob("*") if not path.is_symlink()]
    assert [str(path) for path in made if not path.stat().st_mode & 0o004] == []
    seen = (tmp_path / "seen").read_text().splitlines()
    assert int(seen[0], 8) == 0o022
    assert {f"PIP_INDEX_URL=https://ci:{TOKEN}@index/it's", "PIP_RETRIES=2"} <= set(seen)
    assert TOKEN not in (tmp_path / "ps").read_text()
    assert TOKEN not in done.text


def test_a_failure_is_shown(tmp_path):
    (tmp_path / "opt/venv").mkdir(parents=True)
    done = installed(tmp_path, 1)
    assert done.rc != 0
    assert "Flower could not be installed. Reach the index: flower_install_environment" in done.text
    assert "No matching distribution" in done.text
    assert not list((tmp_path / "opt/venv").glob("complete-*"))


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_one_that_its_user_can_not_read_is_made_anew(tmp_path, mode):
    (tmp_path / "opt/venv").mkdir(parents=True)
    installed(tmp_path, 0)
    (tmp_path / "seen").unlink()
    (tmp_path / "opt/venv/bin").chmod(mode)
    installed(tmp_path, 0)
    assert (tmp_path / "seen").exists() == (mode == 0o700)
