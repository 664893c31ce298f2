"""Who is root needs no sudo; who is not, gets it. The command lines are run by a real shell, as a host would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible.plugins.loader import become_loader, get_shell_plugin

ROOT = Path(__file__).resolve().parents[3]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else without sudo")


@pytest.fixture(scope="module")
def become():
    """The plugin as Ansible loads it, its options included; "sudo" tells what it was asked for."""

    def become(**options):
        plugin = become_loader.get("celery_ops.kit.sudo_unless_root")
        plugin.set_options(direct={"become_exe": "echo sudo was asked:", **options})
        return plugin

    return become


def output(plugin, command, *prefix):
    shell = get_shell_plugin(executable="/bin/sh")
    words = [*prefix, "/bin/sh", "-c", plugin.build_become_command(command, shell)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@as_root
def test_root_needs_no_sudo(become):
    plugin = become()
    assert output(plugin, "id -u").split() == [plugin.success, "0"]


@as_root
def test_root_is_not_asked_for_a_password(become):
    plugin = become(become_pass="s3cret")
    assert output(plugin, "id -u").split() == [plugin.success, "0"]


@as_root
def test_everybody_else_goes_through_sudo(become):
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    assert output(become(), "id -u", *nobody).startswith("sudo was asked: -H -S -n -u root /bin/sh -c")
    said = output(become(become_pass="s3cret"), "id -u", *nobody)
    assert said.startswith("sudo was asked: -H -S -p [sudo via ansible, key=")
    assert "s3cret" not in said


@as_root
def test_another_user_than_root_is_sudos_business(become):
    assert output(become(become_user="petct"), "id -u").startswith("sudo was asked: -H -S -n -u petct")


def test_it_has_every_option_of_ansibles_own_sudo(become):
    assert set(become().option_definitions) == set(become_loader.get("sudo").option_definitions)
