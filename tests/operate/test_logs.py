"""logs.yml and celery-ops-logs: what the programs wrote, of all of them or of one task."""

import json

from support.control import deployed, play
from support.long import LONG
from support.wait import wait_until


def test_the_lines_of_one_task(host):
    name = host.output(host.in_release("celery call celery_ops.tick --queue petct")).split()[-1]
    log = "/var/log/petct/worker-default.log"
    wait_until(lambda: host.ask(f"grep -c '{name}.*succeeded' {log}") == "1", 30, "the task")
    done = play("logs", celery_app_logs_task=name)
    assert done.rc == 0 and done.changed == {host.name: 0}, done.text
    assert f"{host.name} worker-default | [" in done.text
    assert f"celery_ops.tick[{name}] received" in done.words and f"[{name}] succeeded" in done.words
    assert "shown: 2 entries; programs: 1; hosts: 1" in done.words
    assert host.output(host.in_release(f"celery-ops-logs --task {name}")).count(name) == 2


def test_a_program_that_is_not_there_is_refused_by_name(host):
    done = play("logs", celery_app_logs_program="worker-nobody")
    assert done.rc != 0
    assert "celery_app_logs_program: 'worker-nobody' has no log here. Available: scheduler" in done.words


@LONG
def test_json_and_the_journal_have_the_task_and_logs_reads_them(host):
    deployed(celery_app_log_format="json", celery_app_log_syslog=True)
    try:
        name = host.output(host.in_release("celery call celery_ops.tick --queue petct")).split()[-1]
        wait_until(
            lambda: host.ask(f"journalctl -t supervisord --no-pager | grep -c '{name}'") == "2", 30, "the journal"
        )
        lines = [
            json.loads(line) for line in host.output(f"grep '{name}' /var/log/petct/worker-default.log").splitlines()
        ]
        ended = next(line for line in lines if "succeeded" in line["message"])
        assert (ended["task_id"], ended["root_id"], ended["release"]) == (name, name, host.current())
        assert ended["task"] == "celery_ops.tick"
        done = play("logs", celery_app_logs_task=name)
        assert "shown: 2 entries; programs: 1; hosts: 1" in done.words, done.text
    finally:
        deployed()
