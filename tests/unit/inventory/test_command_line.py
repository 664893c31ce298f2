"""A verb that is told something it would not hear is refused before it asks a host."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleError
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
    ],
)
def test_what_is_nearly_a_variable_and_what_has_another_type_is_refused(given, said):
    with pytest.raises(AnsibleError) as refused:
        refuse_mistakes(given)
    assert said in str(refused.value) and "nothing was changed" in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"celery_app_restart": "mail", "celery_app_dead_letters_max": "10", "status_format": "json"},
        {"celery_app_dead_letters_max": "{{ many }}"},
        {"somebodys_own": "1", "celery_app_our_own_thing": "1"},
    ],
)
def test_what_is_right_templates_and_what_is_not_the_kits_is_let_through(given):
    refuse_mistakes(given)


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
    ("playbook", "tag", "said"),
    [
        ("playbooks/site.yml", "rabbit", "nothing in site.yml has this tag; it has check, deploy, "),
        ("celery_ops.kit.deploy", "celery", "nothing in deploy.yml has this tag; it has none, leave --tags out"),
    ],
)
def test_a_tag_for_which_nothing_would_be_done_is_refused(playbook, tag, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(AnsibleError) as refused:
        refuse_mistakes({}, [tag], [playbook])
    assert said in str(refused.value)


def test_tags_that_something_has_and_those_of_other_playbooks_are_let_through(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    refuse_mistakes({}, ["rabbitmq", "flower", "always"], ["playbooks/site.yml"])
    refuse_mistakes({}, ["all"], ["playbooks/deploy.yml"])
    refuse_mistakes({}, ["ours"], [str(tmp_path / "site.yml"), "celery_ops_of_ours.yml"])
