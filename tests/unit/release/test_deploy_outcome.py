"""A deploy's last words: what failed, where, and what runs now."""

from ansible_collections.celery_ops.kit.plugins.action.deploy_outcome import message

WEB = {"phase": "web", "host": "b", "task": "handover | Hand over", "program": "shop-web-1", "reason": "it died."}
LOST = {"phase": "", "host": "c", "task": "", "program": "", "reason": "the connection to it was lost"}


def test_it_names_phase_host_program_and_what_runs_now():
    text = message("r2", [WEB], "rollback", {"a": "r1", "b": "r1"}, {})
    assert text.splitlines() == [
        "The deploy of release r2 failed.",
        "- web on b, program shop-web-1 (handover | Hand over): it died.",
        "Restored to the previous deployment (release r1): a, b. Its migrations, if it ran any, stay.",
    ]


def test_a_host_that_is_out_of_reach_or_could_not_go_back_is_told_apart():
    text = message("r2", [WEB, LOST], "rollback", {"a": "r1", "b": "r1", "c": "r1"}, {"b": "conf.d is full."})
    assert "- connection on c: the connection to it was lost" in text
    assert "b could not be rolled back: conf.d is full. Type: ansible-playbook playbooks/rollback.yml" in text
    assert "c is unreachable: once it is back, type: ansible-playbook playbooks/rollback.yml" in text
    assert "Restored to the previous deployment (release r1): a." in text


def test_after_a_first_deploy_nothing_runs_and_what_is_kept_says_how_to_go_back():
    assert "Nothing runs on a: there was no deployment before." in message("r1", [WEB], "rollback", {"a": ""}, {})
    assert message("r1", [WEB], "keep", {"a": ""}, {}).endswith("ansible-playbook playbooks/rollback.yml")
