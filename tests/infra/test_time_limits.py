"""Every wait is longer than the one inside it, as the host really has it: task, Supervisor, systemd; task, broker."""

from __future__ import annotations

import json
import re

import pytest
from support.host import APP, Host
from support.wait import wait_until

HALF_A_DAY = 12 * 3600
"""Seconds: the longest ETA that the kit promises where a worker holds it (applications without celery_ops.settings)."""

# What supervisord itself has loaded, not what lies in conf.d.
STOP_SECONDS = """
import json, xmlrpc.client
from supervisor.xmlrpc import SupervisorTransport
there = SupervisorTransport(None, None, "unix:///var/run/supervisor.sock")
programs = xmlrpc.client.ServerProxy("http://127.0.0.1", there).supervisor.getAllConfigInfo()
print(json.dumps({program["name"]: program["stopwaitsecs"] for program in programs}))
"""
EFFECTIVE = """
import json, importlib
app = importlib.import_module("petct.celery").app
print(json.dumps([app.conf.task_soft_time_limit, app.conf.task_time_limit]))
"""
# Ids of the tasks that wait in the broker's delay queues. What is fetched here goes back as the connection closes.
DELAYED = """
from petct.celery import app
with app.connection_for_read() as connection:
    for level in range(28):
        while message := connection.default_channel.basic_get(f"celery_delayed_{level}"):
            print(message.properties["application_headers"]["id"])
"""


def option(words: list[str], name: str) -> int:
    """The number that follows an option on a command line."""
    return int(words[words.index(name) + 1])


@pytest.fixture
def words(host) -> list[str]:
    """The command line of the worker that runs."""
    pid = host.program("worker-default").pid
    return [word for word in host.output(f"tr '\\0' '\\n' < /proc/{pid}/cmdline").splitlines() if word]


@pytest.fixture
def hard(host, words) -> int:
    """Seconds after which the running worker ends a task. A worker renames itself; then its conf knows."""
    if "--time-limit" not in words:
        words[:] = host.command_of(host.program("worker-default")).split()
    return option(words, "--time-limit")


@pytest.fixture
def drain(host) -> int:
    """Seconds that supervisord gives the worker to finish its tasks."""
    seconds = json.loads(host.output(f"python3 -c '{STOP_SECONDS}'"))
    return seconds[host.program("worker-default").name]


def consumer_timeout(host: Host) -> float:
    """Seconds that the running broker lets a task go unacknowledged."""
    answer = host.output("rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'")
    return int(re.search(r"\{ok,(\d+)\}", answer)[1]) / 1000


def test_a_task_is_told_to_end_then_ended_then_its_worker(hard, drain, words):
    assert 0 < option(words, "--soft-time-limit") < hard < drain


def test_systemd_waits_longer_than_supervisor(host, drain):
    if not host.has_systemd:
        pytest.skip("this host has no systemd")
    unit = "/org/freedesktop/systemd1/unit/supervisor_2eservice org.freedesktop.systemd1.Service"
    answer = host.output(f"busctl get-property org.freedesktop.systemd1 {unit} TimeoutStopUSec")
    assert int(answer.split()[1]) / 1e6 > drain


def test_the_broker_waits_longer_than_a_task_and_the_longest_eta(host, hard):
    assert consumer_timeout(host) >= hard + HALF_A_DAY


def test_the_application_knows_the_same_limits(host, hard, words):
    pid = host.program("worker-default").pid
    # As its own user: in a container not even root may read another's.
    environment = host.output(f"runuser -u {APP} -- cat /proc/{pid}/environ | tr '\\0' '\\n'")
    assert f"CELERY_OPS_TASK_TIME_LIMIT={hard}" in environment.splitlines()
    effective = json.loads(host.output(host.in_release(f"python -c '{EFFECTIVE}'")))
    assert effective == [option(words, "--soft-time-limit"), hard]


def test_a_task_with_an_eta_waits_in_the_broker_where_no_timeout_counts(host):
    # Found by its id: others' tasks, such as the scheduler's ticks, come and go in the same queues meanwhile.
    task_id = host.output(host.in_release("celery -A petct call celery_ops.tick --countdown 50")).splitlines()[-1]
    delayed = host.in_release(f"python -c '{DELAYED}'")
    wait_until(lambda: task_id in host.output(delayed).split(), 20, "the task in one of the broker's delay queues")
