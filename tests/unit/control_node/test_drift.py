"""What differs from the inventory, read from what ansible-playbook prints."""

from __future__ import annotations

import json
import shutil

import pytest
from ansible import context
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import drift

PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Leave it", "ansible.builtin.debug": {"msg": "changed: [nobody]"}},
            {
                "name": "Write [it]",
                "ansible.builtin.copy": {"content": "x", "dest": "{{ directory }}/{{ item }}"},
                "loop": ["a", "b"],
            },
            {"name": "Restart it", "ansible.builtin.debug": {}, "changed_when": True, "notify": "Handle it"},
            {"name": "Fail", "ansible.builtin.fail": {"msg": "no"}, "when": "fails | default(false)"},
        ],
        "handlers": [{"name": "Handle it", "ansible.builtin.debug": {}, "changed_when": True}],
    }
]


@pytest.fixture
def asks(tmp_path, monkeypatch):
    """This process as `ansible-playbook -i h1,h2 ... status.yml`, with the play as the kit's site.yml."""
    (tmp_path / "site.yml").write_text(json.dumps(PLAY))
    monkeypatch.setattr(drift, "playbook", lambda verb: str(tmp_path / f"{verb}.yml"))
    monkeypatch.setenv("ANSIBLE_DISPLAY_ARGS_TO_STDOUT", "true")
    monkeypatch.setenv("ANSIBLE_DIFF_ALWAYS", "true")

    def call(*words, **given):
        options = ["-i", "h1,h2", "-c", "local", "--diff", "-e", f"directory={tmp_path}", *words, "status.yml"]
        monkeypatch.setattr("sys.argv", [shutil.which("ansible-playbook"), *options])
        monkeypatch.setattr(context, "CLIARGS", {"args": ("status.yml",), **given})
        return drift.differences()

    return call


def test_each_task_that_would_change_is_named_once_a_host_and_nothing_is_changed(asks, tmp_path):
    found = asks()
    assert {one["host"] for one in found} == {"h1", "h2"}
    assert [one["task"] for one in found if one["host"] == "h1"] == ["Write [it]", "Restart it", "Handle it"]
    assert [path.name for path in tmp_path.iterdir()] == ["site.yml"]
    assert {one["host"] for one in asks("--limit", "h2")} == {"h2"}


def test_a_comparison_that_fails_is_said_with_the_task_and_the_command(asks):
    with pytest.raises(
        OperatorError, match=r"ended with status 2 at 'Fail.*' on h[12]\. Look: ansible-playbook .* --check"
    ):
        asks("-e", '{"fails": true}')


@pytest.mark.parametrize("given", [{"become_ask_pass": True}, {"vault_ids": ["prod@prompt"]}])
def test_a_typed_password_is_not_asked_for_again(asks, given):
    with pytest.raises(OperatorError, match=r"a password that was typed can't be passed on"):
        asks(**given)
