"""A host without sudo, whose login user becomes root by su: what is said where that fails."""

import pytest
from support.control import play
from support.host import APP


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"ansible_become_password": "wrong"},
            "Incorrect su password. Write root's password into ansible_become_password",
        ),
        ({"ansible_become_method": "celery_ops.kit.sudo_unless_root"}, "sudo: not found. Type there, as root: apt-get"),
    ],
)
def test_a_login_that_cannot_become_root_is_told_what_to_write(workers, given, says):
    refused = play("site", **given)
    assert refused.rc != 0
    assert f"Can't become root on this host: {'/bin/sh: 1: ' if 'sudo' in says else ''}{says}" in refused.words
    assert refused.failed[workers[1].name] == 1 and set(refused.changed.values()) == {0}, refused.text[-3000:]


def test_the_operators_command_says_that_there_is_no_sudo(workers):
    done = workers[1].run(f"{APP}ctl tasks", user="nobody")
    assert done.rc == 77 and "only root may do that: this host has no sudo" in done.stderr
