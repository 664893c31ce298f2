"""<app>ctl: a member of <app>-ops operates the application without root, and nothing else."""

import json

import pytest

CTL = "/usr/local/bin/petctctl"


@pytest.fixture(scope="module")
def operator(host):
    """A user whose only right is the group."""
    host.output("useradd -m -G petct-ops tim || usermod -aG petct-ops tim")
    yield lambda words: host.run(words, user="tim")
    host.output("userdel -r tim")


def test_the_group_was_created_without_members_and_sudo_knows_the_command_alone(host):
    rules = host.output("visudo -cf /etc/sudoers.d/celery-ops-petct && cat /etc/sudoers.d/celery-ops-petct")
    assert "parsed OK" in rules and "ALL=(root) NOPASSWD: /usr/local/bin/petctctl supervisor *" in rules
    assert host.output("stat -c '%U %G %a' /usr/local/bin/petctctl") == "root root 755"


def test_what_an_operator_can_do(host, operator):
    worker = host.program("worker-default")
    status = operator("petctctl status")
    assert status.rc == 0 and worker.name in status.stdout and "RUNNING: " in status.stdout, status
    logs = operator("petctctl logs -n 500 --program worker-default")
    assert " ready." in logs.stdout or "succeeded" in logs.stdout, logs
    assert "RUNNING: " in operator("petctctl tasks").stdout
    assert operator("petctctl exec id -un").stdout.strip() == "petct"
    assert operator("petctctl exec celery --version").rc == 0
    assert "RUNNING" in operator(f"petctctl supervisor status {worker.name}").stdout


def test_pause_and_resume(host, operator):
    try:
        paused = operator("petctctl pause queue petct")
        [entry] = json.loads(paused.stdout)["entries"]
        assert (entry["what"], entry["name"], entry["who"]) == ("queue", "petct", "tim"), paused
    finally:
        resumed = operator("petctctl resume queue petct")
    assert json.loads(resumed.stdout)["entries"] == []


@pytest.mark.parametrize(
    "words",
    [
        "petctctl supervisor stop others-web-11111111",
        "petctctl supervisor stop 'petct-web-*'",
        "petctctl supervisor shutdown",
        "petctctl supervisor restart",
        "petctctl pause queue 'a\", \"x'",
        "petctctl nothing",
        "sudo -n supervisorctl status",
        "sudo -n -u petct id",
        "sudo -n /usr/local/bin/petctctl exec id",
        "sudo -n -u redis /usr/local/bin/petctctl exec id",
        "cat /etc/petct/env",
    ],
)
def test_what_an_operator_can_not_do(operator, words):
    assert operator(words).rc != 0, words


def test_who_is_not_in_the_group_can_do_nothing(host):
    for words in ("exec id", "supervisor status all", "logs"):
        assert host.run(f"petctctl {words}", user="nobody").rc != 0
