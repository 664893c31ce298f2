"""playbooks/soak.yml: refuses production, passes on a system that works, and sees a task that is lost."""

import re
import subprocess

import pytest
from subject import LEDGER, Subject
from support.control import play, start
from support.host import APP
from support.wait import wait_until

SHORT = {"celery_app_soak_rate": 20, "celery_app_soak_duration": 4, "celery_app_soak_patience": 10}


def test_it_refuses_production_and_says_what_to_type(subject: Subject):
    run = play("soak", subject, celery_app_stage="production", **SHORT)
    assert run.rc != 0
    assert "-e celery_app_soak_on_production=yes" in " ".join(run.text.split())
    assert "Nothing was sent" in run.text
    assert run.changed == {subject.name: 0}


@pytest.mark.parametrize(
    "wrong", [{"celery_app_soak_rate": 201}, {"celery_app_soak_duration": 0}, {"celery_app_soak_patience": 9}]
)
def test_its_load_is_bounded(subject: Subject, wrong: dict):
    run = play("soak", subject, **(SHORT | wrong))
    assert run.rc != 0
    assert f"{next(iter(wrong))} is {next(iter(wrong.values()))}" in " ".join(run.text.split())
    assert run.changed == {subject.name: 0}


@pytest.mark.timeout(180)
def test_it_passes_on_a_system_that_works_and_leaves_no_files(subject: Subject):
    run = play("soak", subject, celery_app_stage="production", celery_app_soak_on_production="yes", **SHORT)
    assert run.rc == 0, run.text[-3000:]
    said = re.search(r"(\d+) of (\d+) tasks were confirmed: 0 lost, 0 doubled", " ".join(run.text.split()))
    assert said, run.text[-3000:]
    assert int(said[1]) == int(said[2]) >= 60
    assert "run-" not in subject.output(f"ls {LEDGER}")


@pytest.mark.timeout(240)
def test_it_sees_a_lost_task(subject: Subject):
    [worker] = subject.workers()
    subject.output(f"supervisorctl stop {worker}")
    try:
        proof = start("soak", subject, output=subprocess.PIPE, **SHORT)
        # The broker is told to forget what it had confirmed; the playbook is not told.
        # Some more than are asked for below: a tick of the scheduler, or two, is among them and in no books.
        wait_until(lambda: waiting(subject) >= 30, 60, "tasks in the queue")
        subject.output(f"rabbitmqctl -q -p {APP} purge_queue {APP}")
    finally:
        subject.output(f"supervisorctl start {worker}")
    said = proof.communicate(timeout=120)[0]
    assert proof.returncode != 0, said[-3000:]
    lost = re.search(r"tasks were confirmed: (\d+) lost", " ".join(said.split()))
    assert lost, said[-3000:]
    assert int(lost[1]) >= 20, said[-3000:]


def waiting(subject: Subject) -> int:
    """Tasks in the application's queue."""
    rows = subject.ask(f"rabbitmqctl -q -p {APP} list_queues name messages").splitlines()
    return next((int(row.split()[1]) for row in rows if row.split()[0] == APP), 0)
