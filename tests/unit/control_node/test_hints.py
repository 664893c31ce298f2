"""Commands in messages are what this operator types: the playbook as it was called, the inventory that was given."""

import shlex

import pytest
from ansible import constants as C
from ansible import context
from ansible.cli.playbook import PlaybookCLI
from ansible.module_utils.common.collections import ImmutableDict
from ansible_collections.celery_ops.kit.plugins.plugin_utils import hints

TEXT = "Nothing was changed. Type: ansible-playbook playbooks/site.yml -e x=yes"
DEFAULT = tuple(C.DEFAULT_HOST_LIST)


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Stands for an ansible-playbook that was called from a directory, with these arguments."""

    def called(playbook, *inventories, kit=hints.KIT, **options):
        arguments = {"args": (str(playbook),), "inventory": inventories or DEFAULT, **options}
        monkeypatch.setattr(context, "CLIARGS", ImmutableDict(arguments))
        monkeypatch.setattr(hints, "KIT", kit)
        monkeypatch.chdir(tmp_path)
        return hints.spelled(TEXT)

    return called


def test_from_the_checkout_with_its_own_inventory(called):
    assert called(hints.KIT / "playbooks/deploy.yml").endswith(
        f"ansible-playbook {hints.KIT}/playbooks/site.yml -e x=yes"
    )


@pytest.mark.parametrize(
    ("typed", "shown"),
    [(".venv/bin/ansible-playbook", ".venv/bin/ansible-playbook"), ("/opt/bin/ansible-playbook", "ansible-playbook")],
)
def test_by_the_path_in_the_checkout_as_make_calls_it(called, monkeypatch, typed, shown):
    monkeypatch.setattr("sys.argv", [typed])
    assert called("celery_ops.kit.deploy").endswith(f" Type: {shown} celery_ops.kit.site -e x=yes")


def test_a_message_that_is_spelled_already_stays_as_it_is(called, monkeypatch):
    """A phase's failure is said again at the end of the deploy."""
    monkeypatch.setattr("sys.argv", [".venv/bin/ansible-playbook"])
    called("playbooks/deploy.yml")
    monkeypatch.chdir(hints.KIT)
    said = hints.spelled(TEXT)
    assert said == hints.spelled(said) == TEXT.replace("ansible-playbook", ".venv/bin/ansible-playbook")


def test_with_the_inventories_that_were_given(called, tmp_path):
    said = called(
        "celery_ops.kit.deploy", str(tmp_path / "my hosts"), "a,b", kit=tmp_path / "ansible_collections/x/kit"
    )
    assert said.endswith("ansible-playbook -i 'my hosts' -i a,b celery_ops.kit.site -e x=yes")


def test_with_the_options_that_log_in_and_open_the_vault_and_no_value(monkeypatch, tmp_path):
    monkeypatch.setattr(context, "CLIARGS", context.CLIARGS)
    monkeypatch.chdir(tmp_path)
    given = ["--user", "tim", "--private-key", "key", "--ask-become-pass", "--vault-id", "prod@prompt"]
    given += ["--vault-password-file", "vault", "-e", "@my vars.yml"]
    others = ["-e", "{celery_app_secrets: {TOKEN: s3cret}}", "-e", "celery_app_purge=mail", "--limit", "w1"]
    PlaybookCLI(["ansible-playbook", *given, *others, "celery_ops.kit.deploy"]).parse()
    assert hints.spelled(TEXT).endswith(f"ansible-playbook {shlex.join(given)} celery_ops.kit.site -e x=yes")


def test_with_the_hosts_of_this_run_where_other_hosts_would_be_a_mistake(called):
    called("celery_ops.kit.uninstall", subset="w1,w2")
    assert hints.command("uninstall", same_hosts=True) == "ansible-playbook --limit w1,w2 celery_ops.kit.uninstall"


def test_from_a_playbook_of_the_operators_own(called, tmp_path):
    kit = tmp_path / "ansible_collections/celery_ops/kit"
    assert called(tmp_path / "ours/site.yml", kit=kit).endswith("ansible-playbook celery_ops.kit.site -e x=yes")


def test_in_all_that_a_module_answers(called):
    called("celery_ops.kit.deploy")
    answer = {"failed": True, "msg": TEXT, "lines": [TEXT, "other"], "rc": 1}
    changed = hints.spelled(answer)
    assert changed["msg"] == changed["lines"][0] != TEXT
    assert (changed["rc"], changed["lines"][1]) == (1, "other")


def test_where_there_is_no_command_line_messages_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(context, "CLIARGS", ImmutableDict({}))
    assert hints.spelled(TEXT) == TEXT


def test_every_module_that_names_a_command_is_called_by_an_action_plugin():
    names = {
        path.name for path in (hints.KIT / "plugins/modules").glob("*.py") if "ansible-playbook" in path.read_text()
    }
    names |= {"rabbitmq_cluster.py"}  # its module_utils do
    called = names - {"supervisor_programs.py"}  # by celery_programs
    assert called
    assert sorted(name for name in called if not (hints.KIT / "plugins/action" / name).exists()) == []
