"""A host whose connection is lost in the middle of a deploy, alone in its batch or group: the others are restored."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.control import ROOT, Run, run_plays

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# The host is lost in its phase: from there on nothing listens where it was reached.
LOSE = """
- name: Lose the host
  when: inventory_hostname == lost
  block:
    - name: Reach it elsewhere from now on
      ansible.builtin.set_fact: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 9}
    - name: Work on it
      celery_ops.kit.release: {app: shop, state: history}
      register: __celery_app_handover
"""
WORK = """
- name: Work
  ansible.builtin.debug: {msg: "worked on {{ inventory_hostname }} in {{ __celery_phase }}"}
"""
# The same in a hook, whose tasks are the operator's.
HOOK = """
- name: Reach it elsewhere from now on
  ansible.builtin.set_fact: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 9}
  when: inventory_hostname == lost
- name: Work of the operator's
  ansible.builtin.command: "true"
"""
ONCE = """
- name: Fail once for all
  ansible.builtin.command: "false"
  run_once: true
"""
WENT_ON = {"ansible.builtin.debug": {"msg": "went on on {{ inventory_hostname }}"}}
SHOW = {
    "name": "Show",
    "ansible.builtin.debug": {"msg": "restored on {{ inventory_hostname }}: {{ failed }}"},
    "vars": {"failed": "{{ lookup('celery_ops.kit.derived', 'failures') | map(attribute='host') | join(',') }}"},
}


def phase(play: dict, name: str, work: Path) -> dict:
    """One of the deploy's plays, with work of the test's own in its phase."""
    role = {"name": "celery_ops.kit.celery", "tasks_from": "phase"}
    given = {"__celery_phase": name, "__celery_work": str(work)}
    return {**play, "become": False, "tasks": [{"name": name, "ansible.builtin.import_role": role, "vars": given}]}


def deploy(tmp_path: Path, work: str, rollout: list[int | str], variables: dict[str, Any], fatal: bool = False) -> str:
    """What the deploy's plays say: workers a and b, scheduler s, the last play."""
    (tmp_path / "work.yml").write_text(work)
    plays = yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text())
    [workers, scheduler] = [play for play in plays if "workers" in play["name"] or "scheduler" in play["name"]]
    [finish] = [play for play in plays if "activate" in play["name"]]
    end = {**finish, "become": False, "tasks": [SHOW]}
    made = [phase(workers, "workers", tmp_path / "work.yml"), phase(scheduler, "scheduler", tmp_path / "work.yml"), end]
    groups = {"worker": {"hosts": {"a": LOCAL, "b": LOCAL}}, "scheduler": {"hosts": {"s": LOCAL}}}
    known = {"celery_app_name": "shop", "celery_app_rollout": rollout, "__celery_app_build": {"alone": False}}
    inventory = {"all": {"children": groups, "vars": known | variables}}
    return run_plays(tmp_path, made, inventory, ANSIBLE_ANY_ERRORS_FATAL=str(fatal)).text


def beside_one_that_is_down(tmp_path: Path, play: dict, tasks: list[dict]) -> Run:
    """Run tasks in a play of the kit's, on a host that is down and on one that is not."""
    down = {"ansible_host": "127.0.0.1", "ansible_port": 9}
    hosts = {"0": down, "a": LOCAL}
    defaults = yaml.safe_load((ROOT / "roles/celery/defaults/main/app.yml").read_text())
    given = {name: value for name, value in defaults.items() if name.startswith("celery_app_dead_letters")}
    given |= {"celery_app_name": "shop", "celery_app_module": "shop", "celery_app_purge": "shop"}
    own = {**play, "become": False, "tasks": [*tasks, WENT_ON]}
    return run_plays(tmp_path, [own], {"worker": {"hosts": hosts, "vars": given}})


@pytest.mark.parametrize("verb", ["pause", "resume", "maintenance"])
def test_a_host_that_is_down_does_not_keep_the_others_from_being_paused_or_opened(tmp_path, verb):
    [play] = yaml.safe_load((ROOT / f"playbooks/{verb}.yml").read_text())
    done = beside_one_that_is_down(tmp_path, play, [{"ansible.builtin.command": "true"}])
    assert "went on on a" in done.text and "unreachable=1" in done.text, done.text
    assert done.rc != 0


@pytest.mark.parametrize(("verb", "file"), [("dead_letters", "dead_letters"), ("purge", "purge_count")])
def test_what_is_done_once_is_done_on_a_host_that_is_there(tmp_path, verb, file):
    play = yaml.safe_load((ROOT / f"playbooks/{verb}.yml").read_text())[0]
    tasks = yaml.safe_load((ROOT / f"roles/celery/tasks/{file}.yml").read_text())
    [number] = [number for number, task in enumerate(tasks) if "celery_ops.kit.app_command" in str(task)]
    done = beside_one_that_is_down(
        tmp_path, play, [*tasks[:number], {"ansible.builtin.command": "true", "run_once": True}]
    )
    assert "went on on a" in done.text and "unreachable=1" in done.text, done.text


@pytest.mark.parametrize(
    ("lost", "rollout", "fatal"),
    [("a", [1, "100%"], False), ("b", [1, "100%"], False), ("s", [1, "100%"], False), ("a", ["100%"], True)],
    ids=["first batch", "second batch", "only scheduler", "an ansible.cfg that says any_errors_fatal"],
)
def test_every_other_host_is_restored(tmp_path, lost, rollout, fatal):
    said = deploy(tmp_path, f"---{LOSE}{WORK}", rollout, {"lost": lost}, fatal)
    for host in {"a", "b", "s"} - {lost}:
        assert f"restored on {host}: {lost}" in said, said
    after = {"a": ["b in workers"] * (len(rollout) > 1) + ["s in scheduler"], "b": ["s in scheduler"], "s": []}[lost]
    assert [place for place in after if f"worked on {place}" in said] == [], said


@pytest.mark.parametrize(
    ("lost", "hook", "rollout"),
    [("a", "before_workers", [1, "100%"]), ("s", "after_scheduler", ["100%"]), ("b", "before_workers", ["100%"])],
    ids=["alone in its batch", "only scheduler", "beside another"],
)
def test_a_host_that_is_lost_in_a_hook_is_a_failure_like_others(tmp_path, lost, hook, rollout):
    (tmp_path / "hook.yml").write_text(HOOK)
    given = {"lost": lost, "celery_app_hooks": {hook: str(tmp_path / "hook.yml")}}
    said = deploy(tmp_path, f"---{WORK}", rollout, given)
    for host in {"a", "b", "s"} - {lost}:
        assert f"restored on {host}: {lost}" in said, said
    assert lost == "s" or "worked on s" not in said, "a phase began after the failure"
    assert rollout != [1, "100%"] or "worked on b" not in said, said


def test_a_task_of_a_hook_that_fails_once_for_all_leaves_no_host_out_of_what_is_restored(tmp_path):
    (tmp_path / "hook.yml").write_text(ONCE)
    said = deploy(tmp_path, f"---{WORK}", ["100%"], {"celery_app_hooks": {"after_workers": str(tmp_path / "hook.yml")}})
    for host in "abs":
        assert f"restored on {host}: a,b" in said, said


@pytest.mark.parametrize("failing", ["", "a", "b"])
def test_nothing_is_migrated_unless_every_host_has_built_the_release(tmp_path, failing):
    """Ansible goes on with the hosts that did not fail, and the one that migrates may be among them."""
    tasks = yaml.safe_load((ROOT / "roles/celery/tasks/build.yml").read_text())
    kept = [{key: task[key] for key in ("name", "when", "register") if key in task} for task in tasks]
    [build, migrate] = [task for task in kept if "Build" in task["name"] or "Migrate" in task["name"]]
    build |= {"name": "Build", "ansible.builtin.command": "test {{ inventory_hostname }} != '" + failing + "'"}
    migrate |= {"ansible.builtin.debug": {"msg": "migrated on {{ inventory_hostname }}"}}
    (tmp_path / "work.yml").write_text(json.dumps([build, migrate]))
    hook = {"name": "Hook", "ansible.builtin.debug": {"msg": "migrated by a hook on {{ inventory_hostname }}"}}
    (tmp_path / "hook.yml").write_text(json.dumps([hook]))
    [play] = [play for play in yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text()) if "release" in play["name"]]
    given = {"celery_app_hooks": {"after_release": str(tmp_path / "hook.yml")}}
    inventory = {"worker": {"hosts": {"a": LOCAL, "b": LOCAL}, "vars": given}}
    said = run_plays(tmp_path, [phase(play, "release", tmp_path / "work.yml")], inventory).text
    assert "TASK [celery_ops.kit.celery : Build]" in said, said
    for how in ("migrated", "migrated by a hook"):
        assert [host for host in "ab" if f"{how} on {host}" in said] == ([] if failing else ["a", "b"]), said


@pytest.fixture
def in_service():
    """The name of an application that this machine passes for running a release of."""
    base = Path(f"/srv/seeded_{os.getpid()}")
    try:
        (base / "releases/r1").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"{base}: {error.strerror}")
    (base / "current").symlink_to("releases/r1")
    yield base.name
    shutil.rmtree(base)


def test_a_host_that_is_added_asks_those_outside_the_run_whether_the_application_is_in_service(tmp_path, in_service):
    tasks = yaml.safe_load((ROOT / "roles/celery/tasks/build.yml").read_text())
    [ask] = [task for task in tasks if "delegate_to" in task]
    results = "__celery_app_elsewhere.results"
    releases = f"{{{{ {results} | map(attribute='release', default='none') | join(',') }}}}"
    lost = f"{{{{ {results} | selectattr('lost', 'defined') | map(attribute='item') | join(',') }}}}"
    show = {"ansible.builtin.debug": {"msg": f"in service: {releases}; lost: {lost}"}}
    play = {"name": "Ask", "hosts": "a", "gather_facts": False, "tasks": [ask, show]}
    down = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    hosts = {"a": LOCAL, "b": LOCAL, "c": down}
    given = {"celery_app_migrate_host": "a", "celery_app_seed_command": "load"}
    inventory = {"worker": {"hosts": hosts, "vars": {"celery_app_name": in_service, **given}}}
    done = run_plays(tmp_path, [play], inventory)
    assert done.rc == 0, done.text
    assert "in service: r1,none; lost: c" in done.text, done.text
