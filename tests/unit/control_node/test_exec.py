"""exec: which words are run, where, and what is said and noted of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.celery_ops.kit.plugins.action.app_exec import ActionModule, named, outcome, words_of
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import is_first


def words(line, shell=False, on="one"):
    return words_of({"celery_app_exec": line, "celery_app_exec_shell": shell, "celery_app_exec_on": on})


def test_a_command_is_split_as_a_shell_does_and_no_shell_runs_it():
    assert words("echo 'a b' $HOME") == ["echo", "a b", "$HOME"]
    assert words("manage.py check --deploy") == ["python", "manage.py", "check", "--deploy"]
    assert words("ls | wc -l", shell="true") == ["/bin/bash", "-c", "ls | wc -l"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"line": " "}, "celery_app_exec is empty"),
        ({"line": "''"}, "celery_app_exec is empty"),
        ({"line": "echo 'a"}, "celery_app_exec_shell=true"),
        ({"line": "true", "shell": "maybe"}, "celery_app_exec_shell is 'maybe': it has to be true or false"),
        ({"line": "true", "on": "web1"}, "celery_app_exec_on is 'web1': it has to be one or all"),
    ],
)
def test_what_can_not_be_run_is_refused_with_what_to_type(options, says):
    with pytest.raises(OperatorError, match="celery_app_exec") as refused:
        words(**options)
    assert says in str(refused.value)


def test_the_audit_log_has_no_arguments_that_may_be_secret():
    assert named(["python", "manage.py", "migrate", "--plan"]) == "python manage.py migrate"
    assert named(["psql", "postgresql://u:pw@db/x?y"]) == "psql"
    assert named(["env", "-u", "X"]) == "env"
    assert named(["/bin/bash", "-c", "curl -H token"]) == "a shell line"


def test_it_runs_once_on_the_host_that_migrates_or_else_the_first():
    hosts = {"ansible_play_hosts_all": ["w1", "w2"]}
    assert [is_first({**hosts, "inventory_hostname": host}, "w2") for host in ("w1", "w2")] == [False, True]
    assert [is_first({**hosts, "inventory_hostname": host}, "w9") for host in ("w1", "w2")] == [True, False]


def test_the_outcome_names_each_host_and_fails_where_one_failed():
    assert outcome({"w1": {"rc": 0}, "w2": {"rc": 3}})["msg"] == "exec: status 0 on w1, status 3 on w2"
    assert outcome({"w1": {"rc": 0}, "w2": {"rc": 3}})["failed"]
    assert not outcome({"w1": {"rc": 0}, "w2": {"text": "would run"}})["failed"]


@pytest.mark.parametrize(("is_there", "has_status"), [(True, True), (False, False)])
def test_a_host_that_was_never_set_up_has_no_status_and_says_what_to_type(is_there, has_status, monkeypatch):
    action = object.__new__(ActionModule)
    action._task, action._templar = SimpleNamespace(environment=[]), None
    answer = {"failed": True, "rc": 1, "stdout": "", "stderr_lines": ["runuser: user shop does not exist"]}
    monkeypatch.setattr(action, "_execute_module", lambda *_, **__: dict(answer))
    monkeypatch.setattr(action, "_low_level_execute_command", lambda _: {"rc": 0 if is_there else 1})
    given = {"celery_app_name": "shop", "inventory_hostname": "new1"}
    action.task_vars, action.variables = given, Variables(given, lambda value: value)
    found = action.as_app(["true"])
    assert ("rc" in found) is has_status
    said = "user shop does not exist" if is_there else "shop was not deployed on new1 yet"
    assert said in found["msg"]
