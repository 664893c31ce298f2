"""tasks.yml: what runs, while the broker is down as well; what is terminated and stays revoked; what is refused."""

import json
import re

from support.control import play
from support.long import LONG
from support.wait import wait_until

AUDIT = "/var/log/petct/deploys.log"


def call(host, number, options=""):
    """Send a task that sleeps for a minute; return its id."""
    words = f"celery call celery_ops.ledger --queue petct -a '[\"tasks\", {number}, 60]' {options}"
    return host.output(host.in_release(words)).split()[-1]


def listed(host, name):
    return name in host.ask(host.in_release("celery-ops-tasks"))


def test_a_task_that_runs_is_listed_and_ends_when_it_is_terminated(host):
    running, later = call(host, 4711), call(host, 4712, "--countdown 600")
    wait_until(lambda: listed(host, running), 20, "the task in its worker's file")
    done = play("tasks")
    assert done.rc == 0 and done.changed == {host.name: 0}, done.text
    assert f"celery_ops.ledger {running} {host.name} worker-default" in done.words
    assert "SCHEDULED in the broker:" in done.words and "due within 17 min" in done.words
    assert re.search(r"for petct: \d+, the next at 20\S+: celery_ops.ledger [0-9a-f-]{36}", done.words), done.text
    assert "4711" not in done.text
    done = play("tasks", celery_app_tasks_id=running, celery_app_tasks_arguments=True)
    assert "RUNNING: 1" in done.words and "4711" in done.text and later not in done.text

    done = play("tasks", celery_app_tasks="terminate", celery_app_tasks_id=f"{running},{later}")
    assert done.rc == 0, done.text
    assert f"terminate {running} {later}: 1 of 1 workers answered" in done.words
    wait_until(lambda: not listed(host, running), 20, "its end")
    assert {running, later} <= set(host.output("cat /var/lib/petct/revoked/by-operator").replace('"', "").split())
    entry = json.loads(host.output(f"tail -1 {AUDIT}"))
    assert (entry["action"], entry["changed"]) == ("tasks", [f"terminate {running} {later}"])


@LONG
def test_a_task_that_runs_is_listed_while_the_broker_is_down(host):
    running = call(host, 4713)
    wait_until(lambda: listed(host, running), 20, "the task in its worker's file")
    host.output("systemctl stop rabbitmq-server")
    down = play("tasks", celery_app_tasks_id=running)
    host.output("systemctl start rabbitmq-server")
    assert down.rc == 0, down.text
    assert "RUNNING: 1" in down.words and "SCHEDULED in the broker: not known (celery-ops-tasks:" in down.words

    wait_until(lambda: " ready" in host.ask("tail -1 /var/log/petct/watchdog.log"), 60, "the worker's return")
    host.output(host.in_release(f"celery-ops-tasks terminate -A petct --id {running}"))


@LONG
def test_a_limit_counts_for_tasks_that_come_and_is_recorded(host):
    name = "celery_ops.ledger"
    try:
        done = play("tasks", celery_app_tasks="time_limit", celery_app_tasks_name=name, celery_app_tasks_limit=3)
        assert done.rc == 0 and f"time_limit {name} to 3: 1 of 1 workers answered" in done.words, done.text
        assert json.loads(host.output(f"tail -1 {AUDIT}"))["changed"] == [f"time_limit {name} to 3"]
        short = call(host, 4714)
        log = "/var/log/petct/worker-default.log"
        wait_until(
            lambda: host.ask(f"grep -c 'imeLimitExceeded.*{short}\\|{short}.*imeLimitExceeded' {log}") != "0",
            20,
            "its end",
        )
        done = play("tasks", celery_app_tasks="rate_limit", celery_app_tasks_name=name, celery_app_tasks_rate="1/h")
        assert done.rc == 0 and f"rate_limit {name} to 1/h: 1 of 1 workers answered" in done.words, done.text
        for number in range(3):
            host.send(name, "limited", number, 0)
        began = f"grep -c 'ledger\\[.*succeeded' {log}"
        before = int(host.ask(began))
        wait_until(lambda: play("tasks", celery_app_tasks_name=name).words.count(f" {name} ") >= 2, 30, "two that wait")
        assert int(host.ask(began)) <= before + 1
    finally:
        assert play("restart", celery_app_restart="default").rc == 0


def test_what_can_not_be_asked_is_refused_by_name_and_nothing_is_changed(host):
    before = host.output(f"tail -1 {AUDIT}")
    done = play("tasks", celery_app_tasks="revoke", celery_app_tasks_id="0c4e0d3e")
    assert done.rc != 0 and "celery_app_tasks_id: '0c4e0d3e' is a part of an id" in done.words
    limit = {"celery_app_tasks": "rate_limit", "celery_app_tasks_rate": "1/m"}
    done = play("tasks", celery_app_tasks_name="petct.nothing", **limit)
    assert done.rc != 0 and "the current release has no task petct.nothing" in done.words
    done = play("tasks", options=["--check"], celery_app_tasks_name="celery_ops.tick", **limit)
    assert done.rc == 0 and "would rate_limit celery_ops.tick to 1/m" in done.words
    assert host.output(f"tail -1 {AUDIT}") == before
