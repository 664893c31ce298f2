"""exec: in the live release, as the application, with its environment; its status and output are kept."""

import json

from support.control import play

LOG = "/var/log/petct/deploys.log"


def test_a_command_of_the_application(host):
    done = play("exec", celery_app_exec="manage.py check")
    assert done.rc == 0, done.text
    assert "System check identified no issues" in done.words
    assert f"exec: status 0 on {host.name}" in done.words
    entry = json.loads(host.output(f"tail -n 1 {LOG}"))
    assert (entry["action"], entry["changed"], entry["outcome"]) == ("exec", ["python manage.py check"], "good")


def test_a_shell_line_runs_as_the_application_and_its_status_is_kept(host):
    line = "whoami; printenv CELERY_OPS_RELEASE_UNSET TMPDIR; pwd | tr a-z A-Z; exit 3"
    done = play("exec", celery_app_exec=line, celery_app_exec_shell=True, options=["-vvv"])
    assert "TMPDIR=/run " in done.text, "Ansible unpacks its module where there is room on a full disk"
    assert done.rc == 2
    assert f"exec: status 3 on {host.name}" in done.words
    assert "petct /SRV/PETCT" in done.words
    secret = host.output("sed -n 's/^PETCT_SECRET_KEY=//p' /etc/petct/env").strip(" '\"\n")
    assert len(secret) > 20
    assert secret not in done.text


def test_check_mode_runs_nothing(host):
    done = play("exec", celery_app_exec="touch /var/lib/petct/touched", options=["--check"])
    assert done.rc == 0, done.text
    assert "would run, as petct: touch" in done.words
    assert host.run("test -e /var/lib/petct/touched").rc == 1
