"""Flower shows workers and tasks behind its password, can do nothing at the broker, and leaves nothing when it goes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from support.control import EPHEMERAL, Run, play
from support.host import APP, Host
from support.long import LONG
from support.wait import wait_until

pytestmark = [LONG, pytest.mark.timeout(900)]

USER = f"flower-{APP}"
TAGS = ["--tags", "rabbitmq,flower,deploy"]
ASK = """
import base64, json, sys, urllib.error, urllib.request
path, login, data = json.load(sys.stdin)
request = urllib.request.Request("http://127.0.0.1:5555" + path, data=None if data is None else data.encode())
if login:
    request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
try:
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""
# As the user that Flower logs in with; one connection each, as a refusal ends the channel.
TRY = """
import json, sys
from kombu import Connection, Producer
url = json.load(open("/etc/flower-petct/settings.json"))["broker_url"]
own = "celeryev.flower.0123456789abcdef"
def publish(channel, exchange, key):
    Producer(channel).publish("x", exchange=exchange, routing_key=key)
TRIES = {
    "publish by the default exchange": lambda c: publish(c, "", "petct"),
    "publish by the tasks' exchange": lambda c: publish(c, "petct", "petct"),
    "give commands to workers": lambda c: publish(c, "celery.pidbox", ""),
    "pretend events": lambda c: publish(c, "celeryev", "task.sent"),
    "purge": lambda c: c.queue_purge("petct"),
    "delete": lambda c: c.queue_delete("petct"),
    "delete the dead": lambda c: c.queue_delete("petct.dead"),
    "delete the events' exchange": lambda c: c.exchange_delete("celeryev"),
    "read": lambda c: c.basic_get("petct"),
    "read the dead": lambda c: c.basic_get("petct.dead"),
    "declare a queue": lambda c: c.queue_declare("petct.other"),
    "copy tasks": lambda c: (c.queue_declare(own, exclusive=True), c.queue_bind(own, "petct", "#")),
    "hear events": lambda c: (c.queue_declare(own, exclusive=True), c.queue_bind(own, "celeryev", "#")),
}
for name, action in TRIES.items():
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        try:
            action(connection.default_channel)
            print(name, "done", sep=": ")
        except Exception as error:
            print(name, type(error).__name__, sep=": ")
"""


def site(host: Host, flower_host: str, **variables: Any) -> Run:
    """Set up the host's part, with or without Flower."""
    run = play("site", options=TAGS, flower_host=flower_host, **variables)
    assert run.rc == 0, run.text[-6000:]
    return run


def login() -> str:
    """The user and password of the page."""
    return f"flower:{(EPHEMERAL / 'secrets' / f'{APP}_flower_password').read_text().strip()}"


def ask(host: Host, path: str, user: str = "", data: str | None = None) -> tuple[int, str]:
    """The status and text of a page."""
    answer = json.loads(host.output(f"python3 -c {shlex.quote(ASK)}", stdin=json.dumps([path, user, data])))
    return answer[0], answer[1]


@pytest.fixture(scope="module")
def flower(host):
    """Flower on the host of the scenario, until the module's end."""
    site(host, host.name)
    yield host
    site(host, "")


def test_it_asks_for_a_password_on_every_page(flower):
    for path in ("/", "/workers?json=1", "/tasks", "/api/tasks", "/api/workers", "/broker"):
        assert [ask(flower, path)[0], ask(flower, path, "flower:wrong")[0]] == [401, 401], path
    assert {ask(flower, path)[0] for path in ("/metrics", "/healthcheck")} == {404}
    assert flower.output("ss -Htln 'sport = :5555' | grep -o '[0-9.]*:5555'") == "127.0.0.1:5555"


def test_it_shows_the_workers_and_their_tasks(flower):
    worker = f"{flower.program('worker-default').name}@{flower.name}"

    def online() -> dict[str, bool]:
        rows = json.loads(ask(flower, "/workers?json=1", login())[1])["data"]
        return {row["hostname"]: row["status"] for row in rows}

    wait_until(lambda: online().get(worker), 20, f"{worker} on Flower's page")
    flower.send("loadArray", "no/such/file", [1])

    def states() -> set[str]:
        return {task["state"] for task in json.loads(ask(flower, "/api/tasks?taskname=loadArray", login())[1]).values()}

    wait_until(lambda: "FAILURE" in states(), 20, "the task on Flower's page")


def test_the_status_shows_whether_it_answers(flower):
    shown = play("status", flower_host=flower.name)
    assert shown.rc == 0, shown.text
    assert "flower: RUNNING, answers at http://127.0.0.1:5555/, up" in shown.words
    pid = flower.output(f"supervisorctl pid {USER}")
    flower.output(f"kill -STOP {pid}")
    try:
        frozen = play("status", flower_host=flower.name)
    finally:
        flower.output(f"kill -CONT {pid}")
    assert frozen.rc == 2 and "Flower does not answer at http://127.0.0.1:5555/. Look: tail" in frozen.words
    flower.output(f"supervisorctl stop {USER}")
    try:
        stopped = play("status", flower_host=flower.name)
    finally:
        flower.output(f"supervisorctl start {USER}")
    assert f"{USER} was stopped manually. Start it: supervisorctl start {USER}" in stopped.words


def test_it_gives_no_commands(flower):
    worker = f"{flower.program('worker-default').name}@{flower.name}"
    pids = flower.workers()
    for path in (f"worker/shutdown/{worker}", "task/async-apply/loadArray", "task/revoke/0", "task/send-task/x"):
        assert ask(flower, f"/api/{path}", login(), '{"args": [1, 2]}')[0] == 403, path
    assert flower.workers() == pids


def test_its_user_can_hear_events_and_nothing_else(flower):
    lines = flower.output(f"/srv/{APP}/current/venv/bin/python -", stdin=TRY).splitlines()
    results = dict(line.split(": ") for line in lines)
    assert results.pop("hear events") == "done"
    assert len(results) == 12
    assert {name: result for name, result in results.items() if result != "AccessRefused"} == {}


def test_its_password_is_for_root_and_its_own_user_alone(flower):
    password = login().partition(":")[2]
    assert flower.output("stat -c '%a %U %G' /etc/flower-petct/settings.json") == f"640 root {USER}"
    processes = flower.output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
    assert password not in processes
    assert password not in flower.output(f"cat /etc/supervisor/conf.d/*.conf /var/log/{USER}/*")
    assert flower.run("cat /etc/petct/env", user=USER).rc != 0


def test_a_second_run_changes_nothing(flower):
    pids = flower.running()
    again = site(flower, flower.name)
    assert (again.changed[flower.name], flower.running()) == (0, pids)


def test_what_an_interrupted_run_has_written_is_read_by_the_next(flower):
    pid = flower.output(f"supervisorctl pid {USER}")
    flower.output(f"touch /etc/{USER}/settings.json")
    run = play("site", options=["--tags", "flower"], flower_host=flower.name)
    assert run.rc == 0, run.text[-6000:]
    assert flower.output(f"supervisorctl pid {USER}") != pid


def test_control_is_an_option(flower):
    site(flower, flower.name, flower_control=True)
    worker = f"{flower.program('worker-default').name}@{flower.name}"

    def inspected() -> bool:
        return "stats" in json.loads(ask(flower, "/api/workers?refresh=1", login())[1] or "{}").get(worker, {})

    wait_until(inspected, 30, "the worker's answers on Flower's page")
    assert ask(flower, "/api/task/revoke/0", login(), "")[0] == 200


def test_it_leaves_nothing_when_it_goes(flower):
    site(flower, "")
    assert flower.run(f"ls -d /opt/{USER} /etc/{USER} /var/log/{USER} /etc/supervisor/conf.d/{USER}.conf").stdout == ""
    assert flower.run(f"id {USER}").rc != 0
    assert USER not in flower.output("supervisorctl status") + flower.output("rabbitmqctl -q list_users")
    assert "--task-events" not in flower.command_of(flower.program("worker-default"))
    wait_until(lambda: flower.amiss() == "", 20, "the programs as before")
