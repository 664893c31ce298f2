"""What a purge, a replay, a discard or a restore did is in the audit log, also where it failed half-way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.control import ROOT, Run, run_plays

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GIVEN = {
    **{"celery_app_name": "shop", "celery_app_module": "shop"},
    **{"celery_app_purge": "mail", "celery_app_purge_confirm": "mail"},
    **{"celery_app_backup_file": "b.sealed", "celery_app_restore": "data"},
    **{f"celery_app_dead_letters_{name}": "" for name in ("task", "id", "queue", "reason")},
    **{"celery_app_dead_letters_confirm": "yes", "celery_app_dead_letters_max": 0},
}
DONE = "celery_ops.kit.app_command", "celery_ops.kit.celery_backup"
"""What the command takes the place of; of a restore, it is the comparison at the end."""


def tried(task: dict[str, Any], command: str) -> dict[str, Any]:
    """A task of the role's with a command in the place of what it does, and a line in that of the log's."""
    if parts := {key: task[key] for key in ("block", "rescue") if key in task}:
        return {**task, **{key: [tried(one, command) for one in some] for key, some in parts.items()}}
    rest = {key: value for key, value in task.items() if not key.startswith("celery_ops.kit.")}
    if done := next((task[name] for name in DONE if name in task), None):
        words = command if done.get("state", "compared") == "compared" else "true"
        return {**rest, "ansible.builtin.command": {"argv": ["sh", "-c", words]}}
    if entry := task.get("celery_ops.kit.audit_entry"):
        what, outcome = entry["what"][0], entry.get("outcome", "good")
        said = f"recorded {entry['action']} on {{{{ inventory_hostname }}}}: {what}, {outcome}"
        return {**rest, "ansible.builtin.debug": {"msg": said}}
    return rest


@pytest.mark.parametrize(
    ("verb", "action", "command", "entry"),
    [
        ("purge", "", "echo To undo it: x; echo 3 of 3 moved", "3 of 3 moved, good"),
        ("purge", "", "echo 1 moved before that >&2; exit 1", "mail, failed: non-zero return code"),
        ("purge", "", "echo unchanged: 0 of 0", ""),
        ("dead_letters", "discard", "echo 3 of 4 discarded; echo left: 1", "3 of 4 discarded, good"),
        ("dead_letters", "replay", "exit 1", "replay, failed: non-zero return code"),
        ("dead_letters", "replay", "echo unchanged: 4", ""),
        ("dead_letters", "list", "echo 4 dead letters", ""),
        ("dead_letters", "list", "exit 1", ""),
        ("restore", "", "exit 1", "b.sealed, failed: non-zero return code"),
    ],
)
def test_what_was_done_is_recorded(tmp_path, verb, action, command, entry):
    file = {"restore": "restore_backup"}.get(verb, verb)
    tasks = yaml.safe_load((ROOT / f"roles/celery/tasks/{file}.yml").read_text())
    play = {
        "name": "Do it",
        "hosts": "worker",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles/celery/vars/main.yml")],
        "tasks": [tried(task, command) for task in tasks],
    }
    given = {**GIVEN, "celery_app_dead_letters": action}
    done = run_plays(tmp_path, [play], {"worker": {"hosts": {"a": LOCAL, "b": LOCAL}, "vars": given}})
    # What failed is over for the host that did it alone.
    hosts = "a" if "failed" in entry else "ab" if entry else ""
    assert [host for host in hosts if f"recorded {verb} on {host}: {entry}" not in done.words] == [], done.text
    assert done.words.count(f"recorded {verb} on") == len(hosts), done.text
    assert (done.rc != 0) is ("exit 1" in command), done.text


TASKS = ROOT / "roles/celery/tasks"
TARGET = {"release": "r1", "peer": "a", "archive": "none", "without_record": ["b"], "without_release": ["b"]}


def roll_back(directory: Path, step: dict[str, Any]) -> Run:
    """Run a step of a rollback on two hosts, with what it does for a failure: a line in the place of the log's."""
    assert [one["ansible.builtin.include_tasks"] for one in step["rescue"]] == ["rollback_failed.yml"]
    record, *rest = yaml.safe_load((TASKS / "rollback_failed.yml").read_text())
    entry = record.pop("celery_ops.kit.release")
    said = f"recorded {entry['action']} {entry['state']} {entry['id']}: {entry['reason']}"
    (directory / "rollback_failed.yml").write_text(
        yaml.safe_dump([{**record, "ansible.builtin.debug": {"msg": said}}, *rest])
    )
    play = {
        "name": "Roll back",
        "hosts": "worker",
        "gather_facts": False,
        "any_errors_fatal": True,
        "vars_files": [str(ROOT / "roles/celery/vars/main.yml")],
        "tasks": [step],
    }
    target = {**TARGET, "is_packed": False}
    given = {"celery_app_name": "shop", "celery_app_stage": "test", "__celery_app_target": target}
    return run_plays(directory, [play], {"worker": {"hosts": {"a": LOCAL, "b": LOCAL}, "vars": given}})


def step_of(file: str) -> dict[str, Any]:
    """The step that records its failure."""
    [step] = [task for task in yaml.safe_load((TASKS / f"{file}.yml").read_text()) if "rescue" in task]
    return step


@pytest.mark.parametrize("file", ["rebuild", "rollback"])
def test_a_rollback_that_fails_is_recorded_wherever_it_does(tmp_path, file):
    work = [{"ansible.builtin.command": "test {{ inventory_hostname }} != a"}]
    done = roll_back(tmp_path, {**step_of(file), "block": work})
    assert "recorded rollback failed r1: on a: non-zero return code" in done.words, done.text
    assert "The rollback to release r1 failed on a: non-zero return code Try again:" in done.words, done.text
    assert done.rc != 0


@pytest.mark.parametrize(("failing", "host"), [("archive", "a"), ("fetch", "a"), ("release", "b")])
def test_each_step_of_a_rebuild_that_fails_is_recorded_where_it_runs(tmp_path, failing, host):
    def stand_in(task: dict[str, Any]) -> dict[str, Any]:
        if "block" in task:
            return {**task, **{key: list(map(stand_in, task[key])) for key in ("block", "always") if key in task}}
        [module] = [name for name in task if "." in name]
        done = {"ansible.builtin.command": "false" if module.endswith(f".{failing}") else f"echo {module}"}
        return {key: value for key, value in task.items() if key != module} | done

    done = roll_back(tmp_path, stand_in(step_of("rebuild")))
    said = f"recorded rollback failed r1: on {host}: non-zero return code"
    assert done.words.count(said) == done.words.count("recorded rollback") == 2, "a line on both hosts, with the reason"
    assert done.changed["b"] == 0, "nothing is built of a release that could not be packed"
