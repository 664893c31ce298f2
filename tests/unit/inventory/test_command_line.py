"""A verb that is told something it would not hear is refused before it asks a host."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.splitter import parse_kv
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.command_line import refuse_mistakes
from support.control import ROOT, run


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"celery_app_restrat": "mail"}, "did you mean celery_app_restart?"),
        ({"celery_app_pause_queu": "mail"}, "did you mean celery_app_pause_queue?"),
        ({"celery_app_dead_letters_max": "ten"}, 'celery_app_dead_letters_max is "ten": it has to be a whole number'),
        ({"celery_app_dead_letters": "lisst"}, "did you mean list?"),
        ({"celery_app_dead_letters_reason": "purgd"}, "did you mean purged?"),
        ({"celery_worker_programs": "default"}, "it has to be a list"),
        ({"celery_app_restart_program": "mail"}, "did you mean celery_app_restart? Write: -e celery_app_restart=..."),
        ({"status_fromat": "json"}, "did you mean status_format?"),
        ({"uninstall_service": "yes"}, "did you mean uninstall_services?"),
        ({"rabbitmq_move_form": "b1"}, "did you mean rabbitmq_move_from?"),
    ],
)
def test_what_is_nearly_a_variable_and_what_has_another_type_is_refused(given, said):
    with pytest.raises(AnsibleError) as refused:
        refuse_mistakes(given, {})
    assert said in str(refused.value) and "nothing was changed" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "rest"),
    [("celery_app_exec=manage.py check", "check"), ("celery_app_pause_why=a disk", "disk"), ("mail", "mail")],
)
def test_what_ansible_would_drop_of_a_value_with_a_space_is_refused(words, rest):
    with pytest.raises(AnsibleError, match=rf"-e: '{rest}' stands alone.*\"celery_app_exec='manage.py check'\""):
        refuse_mistakes(parse_kv(words), {})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"celery_app_restart": "mail", "celery_app_dead_letters_max": "10", "status_format": "json"},
        {"celery_app_scale": "a=2", "celery_app_scale_until": "18:00", "celery_app_purge_confirm": "a"},
        {"rabbitmq_move_from": "b1", "rabbitmq_move_confirm": "yes", "uninstall_confirm": "yes"},
        {"celery_app_dead_letters_max": "{{ many }}"},
        {"somebodys_own": "1", "celery_app_our_own_thing": "1"},
    ],
)
def test_what_is_right_templates_and_what_is_not_the_kits_is_let_through(given):
    refuse_mistakes(given, {})


def test_every_verb_begins_with_it():
    for playbook in (ROOT / "playbooks").glob("*.yml"):
        assert "lookup('celery_ops.kit.hosts'" in playbook.read_text(), playbook


def test_a_verb_that_is_misheard_does_nothing(tmp_path):
    (tmp_path / "hosts.yml").write_text("worker: {hosts: {nowhere: {ansible_connection: local}}}")
    words = [
        "ansible-playbook",
        "-i",
        str(tmp_path / "hosts.yml"),
        "playbooks/restart.yml",
        "-e",
        "celery_app_restrat=mail",
    ]
    refused = run(words)
    assert refused.rc != 0 and "did you mean celery_app_restart?" in refused.text
    assert "TASK" not in refused.text
    refused = run([*words[:3], "playbooks/deploy.yml", "--tags", "celery"])
    assert refused.rc != 0 and "nothing in deploy.yml has this tag" in refused.text


@pytest.mark.parametrize(
    ("playbook", "option", "tag", "said"),
    [
        ("playbooks/site.yml", "tags", "rabbit", "nothing in site.yml has this tag; it has check, deploy, "),
        (
            "celery_ops.kit.deploy",
            "tags",
            "celery",
            "nothing in deploy.yml has this tag; it has none, leave --tags out",
        ),
        ("playbooks/deploy.yml", "skip_tags", "migrate", "nothing in deploy.yml has this tag to skip; it has none"),
        ("playbooks/site.yml", "skip_tags", "always", "--skip-tags always: nothing in site.yml has this tag to skip"),
    ],
)
def test_a_tag_that_nothing_has_is_refused(playbook, option, tag, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(AnsibleError) as refused:
        refuse_mistakes({}, {option: [tag], "args": [playbook]})
    assert said in str(refused.value)


def test_tags_that_something_has_and_those_of_other_playbooks_are_let_through(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    refuse_mistakes({}, {"tags": ["rabbitmq", "flower", "always"], "args": ["playbooks/site.yml"]})
    refuse_mistakes({}, {"skip_tags": ["monitoring"], "args": ["playbooks/site.yml"]})
    refuse_mistakes({}, {"skip_tags": ["check"], "args": ["playbooks/restore.yml", "playbooks/rabbitmq_move.yml"]})
    refuse_mistakes({}, {"tags": ["all"], "args": ["playbooks/deploy.yml"]})
    refuse_mistakes({}, {"tags": ["ours"], "args": [str(tmp_path / "site.yml"), "celery_ops_of_ours.yml"]})


@pytest.mark.parametrize("strategy", ["free", "ansible.builtin.host_pinned", "mitogen_free"])
def test_a_strategy_in_which_hosts_do_not_wait_for_each_other_is_refused(strategy):
    with pytest.raises(AnsibleError, match=f"strategy is {strategy} .*ANSIBLE_STRATEGY=linear"):
        refuse_mistakes({}, {}, strategy)


@pytest.mark.parametrize("strategy", ["linear", "ansible.builtin.linear", "debug", "mitogen_linear"])
def test_others_are_let_through(strategy):
    refuse_mistakes({}, {}, strategy)


def test_every_verb_hears_of_the_strategy_and_of_where_to_start(tmp_path):
    (tmp_path / "hosts.yml").write_text("worker: {hosts: {nowhere: {ansible_connection: local}}}")
    words = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "playbooks/deploy.yml"]
    refused = run([*words, "--start-at-task", "Web"], environment={"ANSIBLE_STRATEGY": "free"})
    assert refused.rc != 0 and "TASK" not in refused.text
    assert "--start-at-task Web leaves out all that comes before it" in refused.text
    assert "ANSIBLE_STRATEGY=linear" in refused.text
