"""The status of a host: what is wrong and what to type, for people and for scripts."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest
from support.control import EPHEMERAL, GROUPS, ROOT, Inventory, play
from support.long import LONG
from support.wait import wait_until

SCHEMA = json.loads((ROOT / "docs/status.schema.json").read_text())


@contextmanager
def stopped(host, name):
    """A program that somebody has stopped."""
    host.output(f"supervisorctl stop {name}")
    try:
        yield
    finally:
        host.output(f"supervisorctl start {name}")
        wait_until(lambda: host.program("scheduler").state == "RUNNING", 30, "the scheduler running")


def test_the_status_ends_with_2_if_something_is_wrong_and_a_script_can_take_it(host, tmp_path):
    file, name = tmp_path / "status.json", host.program("scheduler").name
    with stopped(host, name):
        done = play("status", status_format="json", status_output=str(file))
    assert done.rc == 2, done.text
    assert f"PROBLEMS: - {name} was stopped manually. Start it: supervisorctl start {name}" in done.words, done.text
    assert f"The status is in {file}" in done.words
    assert "1 problem: see above. To exit with 0 anyway: -e status_exit=false" in done.words
    assert done.changed == {host.name: 0}
    said = json.loads(Path(file).read_text())
    jsonschema.validate(said, SCHEMA)
    assert said["ok"] is False
    assert said["problems"] == [
        {"host": host.name, "problem": f"{name} was stopped manually", "fix": f"Start it: supervisorctl start {name}"}
    ]
    [seen] = said["hosts"]
    worker = next(one for one in seen["programs"] if one["program"] == "petct-worker-default")
    assert worker["memory"] > 2**20
    assert (worker["state"], worker["slots"], worker["queues"]) == ("RUNNING", 2, ["petct"])
    [node] = seen["broker"]["nodes"]
    assert 0 < node["memory"] < node["memory_limit"]
    assert node["disk_free"] > node["disk_limit"]
    assert seen["result_store"]["reachable"] is True
    queues = {queue["name"]: queue for queue in said["applications"][0]["queues"]}
    assert queues.keys() == {"petct", "petct.dead"}
    assert queues["petct"]["consumers"] == 1


def test_a_result_store_that_is_down_is_a_problem_and_fails_the_doctor(host):
    host.output("systemctl stop redis-server")
    try:
        done, doctor = play("status"), play("doctor")
    finally:
        host.output("systemctl start redis-server")
    refused = "Could not connect to Redis at 127.0.0.1:6379: Connection refused"
    assert done.rc == 2, done.text
    assert f"The result store does not answer ({refused}). Start it: service redis-server start" in done.words
    assert doctor.rc == 2
    assert f"FAIL redis-answers: {refused}" in doctor.words


def test_waiting_tasks_that_nothing_consumes_are_a_problem_and_exit_false_keeps_0(host):
    worker = host.program("worker-default").name
    count = "rabbitmqctl -q -p petct list_queues name messages_ready"
    host.output(f"supervisorctl stop {worker}")
    try:  # the scheduler's ticks wait soon
        wait_until(lambda: re.search(r"^petct\t[1-9]", host.output(count), re.MULTILINE), 40, "a tick that waits")
        done = play("status", status_exit=False)
    finally:
        host.output(f"supervisorctl start {worker}")
    assert done.rc == 0, done.text
    assert re.search(r"Nothing consumes from petct, where \d+ tasks wait", done.words), done.text
    assert re.search(r"petct +[1-9]\d* +0 +0 ", done.text), done.text


def test_dead_letters_are_told_by_reason_and_stay_where_they_are(host, tmp_path):
    file, count = tmp_path / "status.json", "rabbitmqctl -q -p petct list_queues name messages_ready"
    for _ in range(2):
        host.send("nobody.knows")
    wait_until(lambda: re.search(r"^petct\.dead\t2", host.output(count), re.MULTILINE), 20, "the dead letters")
    try:
        done = play("status", status_format="json", status_output=str(file))
        assert re.search(r"^petct\.dead\t2", host.output(count), re.MULTILINE)
    finally:
        host.output("rabbitmqctl -q -p petct purge_queue petct.dead")
    assert "2 dead-lettered tasks (2 rejected). List them: " in done.words
    queues = {queue["name"]: queue for queue in json.loads(file.read_text())["applications"][0]["queues"]}
    assert queues["petct.dead"]["reasons"] == [{"reason": "rejected", "count": 2}]


def test_a_scheduler_of_a_host_that_is_not_in_the_group_any_more_is_named(host, tmp_path):
    groups = [group for group in GROUPS if group != "scheduler"]
    inventory = Inventory.write(tmp_path / "inventory", host, groups, {"celery_app_name": host.app})
    name, clients = host.program("scheduler").name, f"rabbitmqctl -q -p {host.app} list_connections client_properties"
    wait_until(lambda: f"{name} on {host.name}" in host.output(clients), 40, "its connection, made with its first tick")
    done = inventory.play("status", celery_app_secrets_dir=f"{EPHEMERAL}/secrets")
    assert done.rc == 2, done.text
    assert f"{name} on {host.name} (connected from 127.0.0.1:" in done.words
    assert f"schedules tasks, and {host.name} is not in the group scheduler. Remove it: ansible-playbook" in done.words


@LONG
@pytest.mark.timeout(600)
def test_what_was_edited_by_hand_is_a_difference_from_the_inventory(host, tmp_path):
    file = tmp_path / "status.json"
    done = play("status", status_drift=True)
    assert done.rc == 0, done.text
    assert "drift: none, site.yml would change nothing" in done.words
    host.output("chmod 0755 /var/log/petct")
    try:
        done = play("status", status_drift=True, status_format="json", status_output=str(file))
    finally:
        host.output("chmod 0750 /var/log/petct")
    assert done.rc == 2, done.text
    [one] = json.loads(file.read_text())["drift"]
    assert one["host"] == host.name and "celery" in one["task"]
    assert f"It differs from the inventory, site.yml would change: {one['task']}. Show it: " in done.words


def test_a_format_that_there_is_not_is_refused(host):
    done = play("status", status_format="xml")
    assert done.rc != 0
    assert "status_format: 'xml' is not a format. Write: -e status_format=text|json|html" in done.words
