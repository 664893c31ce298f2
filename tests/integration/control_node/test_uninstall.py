"""Uninstall, planned only, where what has the application's name is somebody else's."""

from __future__ import annotations

from support.control import run_plays

TAKEN = "skel"  # /etc/skel is Debian's, and no user has that name


def test_what_only_has_the_name_of_the_application_stays(tmp_path):
    remove = {"ansible.builtin.import_role": {"name": "celery_ops.kit.celery", "tasks_from": "uninstall"}}
    inventory = {"all": {"hosts": {"db1": {"ansible_connection": "local", "celery_app_name": TAKEN}}}}
    play = {"hosts": "all", "gather_facts": False, "check_mode": True, "tasks": [remove]}
    done = run_plays(tmp_path, [play], inventory)
    assert done.rc == 0, done.text
    assert f"Not from this kit, and stays: /etc/{TAKEN}" in done.words
    assert done.changed == {"db1": 0}, done.text
