"""A worker host that the control node loses in the middle of a deploy: all others end on one release, the old one."""

import re

import pytest
from support.control import play
from support.host import APP
from support.long import LONG
from support.wait import wait_until

# Its SSH server ends between two phases, when its workers have been handed over. Its programs run on.
HOOK = """
- name: Lose the host
  ansible.builtin.raw: docker exec {host} sh -c 'systemctl stop ssh; pkill -KILL sshd; true'
  delegate_to: localhost
  become: false
  run_once: true
  changed_when: true
"""


def releases(host):
    """The releases that the worker programs on a host run."""
    return set(re.findall(r"releases/([0-9a-f]{12})/", host.ask(f"cat /etc/supervisor/conf.d/{APP}-worker-*.conf")))


@LONG
@pytest.mark.timeout(600)
def test_the_others_return_to_the_release_before_and_the_lost_one_follows(hub, workers, variants, tmp_path):
    first, [lost, other] = hub.current(), workers
    hook = tmp_path / "lose.yml"
    hook.write_text(HOOK.format(host=lost.name))
    settings = {"celery_app_source": str(variants.make("lost")), "celery_app_hooks": {"after_workers": str(hook)}}
    settings["celery_app_rollout"] = ["100%"]
    try:
        deploy = play("deploy", **settings)
        assert deploy.rc != 0
        assert re.search(rf"connection on {lost} \(.*?\): the connection to it was lost", deploy.words), deploy.text[
            -4000:
        ]
        assert f"{lost} is unreachable: once it is back, type: " in deploy.words
        assert re.search(rf"Restored to the previous deployment \(release {first}\): .*{other}", deploy.words)
        assert hub.current() == other.current() == first
        assert releases(other) == {first}
        assert hub.consumers() >= 1
    finally:
        lost.ask("systemctl start ssh")
    back = play("rollback")
    assert back.rc == 0, back.text[-4000:]
    for host in (hub, *workers):
        assert host.current() == first
    wait_until(lambda: releases(lost) == releases(other) == {first}, 60, "the lost host on the same release")
    wait_until(lambda: hub.consumers() == len(workers), 60, "a consumer on each worker host")
