"""Every time limit is made of celery_app_task_time_limit, and each is longer than the one inside it."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.template import trust_as_template
from celery_ops.launch import env
from support.inputs import input_of

ROOT = Path(__file__).resolve().parents[2]
HALF_A_DAY = 12 * 3600
"""Seconds: the longest ETA that the kit promises where a worker holds it unacknowledged."""
# From the shortest that has a soft limit below it to the longest that the check of the inventory lets through.
each_limit = pytest.mark.parametrize("limit", [2, 3, 20, 300, 7200, 43200, 43201, 30 * 86400])


@pytest.fixture
def worker(programs):
    """Returns a worker's command line and stop timeout for a time limit."""

    def words(limit: int) -> tuple[list[str], int]:
        program = programs("workers", celery_app_task_time_limit=limit)["petct-worker-default"]
        return program.command, program.stop_timeout

    return words


def option(words: list[str], name: str) -> int:
    return int(words[words.index(name) + 1])


@each_limit
def test_task_then_supervisor_then_systemd(limit, worker, render, tmp_path):
    words, stop_timeout = worker(limit)
    given = input_of(tmp_path, "supervisor_stop_timeout", celery_app_task_time_limit=limit)
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(render(ROOT / "roles/supervisor/templates/dropin.conf.j2", supervisor_stop_timeout=given))
    hard = option(words, "--time-limit")
    assert hard == limit
    assert 0 < option(words, "--soft-time-limit") < hard < stop_timeout < int(unit["Service"]["TimeoutStopSec"])
    assert hard < option(words, "--drain-timeout") <= stop_timeout


@each_limit
def test_task_and_eta_then_broker(limit, render, tmp_path):
    given = input_of(tmp_path, "rabbitmq_consumer_timeout", celery_app_task_time_limit=limit)
    conf = render(ROOT / "roles/rabbitmq/templates/celery-ops.conf.j2", rabbitmq_consumer_timeout=given)
    milliseconds = int(re.search(r"^consumer_timeout = (\d+)$", conf, re.M)[1])
    assert limit + HALF_A_DAY <= milliseconds / 1000


@pytest.mark.parametrize("limit", [2, 300, 7200])
def test_the_application_and_the_worker_have_the_same(limit, worker, environment):
    variables = env.parse(environment(celery_app_task_time_limit=limit))
    assert variables["CELERY_OPS_TASK_TIME_LIMIT"] == str(limit)
    code = "import json, celery_ops.settings as s; print(json.dumps([s.task_soft_time_limit, s.task_time_limit]))"
    path = {"PYTHONPATH": str(ROOT / "runtime")}
    settings = subprocess.run([sys.executable, "-c", code], env=variables | path, capture_output=True, check=True)
    words, _ = worker(limit)
    assert json.loads(settings.stdout) == [option(words, "--soft-time-limit"), option(words, "--time-limit")]


def test_a_program_may_have_a_limit_of_its_own_and_no_other_has_it(programs, tmp_path):
    mine = [{"name": "default", "queues": ["a"]}, {"name": "long", "queues": ["b"], "time_limit": 21600}]
    found = programs("workers", celery_worker_programs=mine)
    long, default = found["petct-worker-long"], found["petct-worker-default"]
    assert option(long.command, "--time-limit") == 21600 and option(default.command, "--time-limit") == 300
    assert option(long.command, "--drain-timeout") == long.stop_timeout == 21630
    assert option(default.command, "--drain-timeout") == default.stop_timeout == 330
    assert input_of(tmp_path, "rabbitmq_consumer_timeout", celery_worker_programs=mine) == 86400
    assert input_of(tmp_path, "supervisor_stop_timeout", celery_worker_programs=mine) > 21630


@pytest.mark.parametrize(
    ("mine", "found"),
    [
        ([{"name": "default", "queues": ["a"]}], [270, 300]),
        ([{"name": "default", "queues": ["a"]}, {"name": "long", "queues": ["b"], "time_limit": 900}], [None, None]),
    ],
)
def test_where_a_program_has_a_limit_of_its_own_no_sender_writes_another_into_the_messages(mine, found, environment):
    """Celery takes a limit in a message for more than that of the worker's command line."""
    variables = env.parse(environment(celery_worker_programs=mine))
    code = "import json, celery_ops.settings as s; print(json.dumps([s.task_soft_time_limit, s.task_time_limit]))"
    path = {"PYTHONPATH": str(ROOT / "runtime")}
    settings = subprocess.run([sys.executable, "-c", code], env=variables | path, capture_output=True, check=True)
    assert json.loads(settings.stdout) == found


def test_where_programs_have_limits_of_their_own_a_gevent_worker_has_the_common_one(programs):
    mine = [{"name": "net", "queues": ["a"], "pool": "gevent"}, {"name": "long", "queues": ["b"], "time_limit": 900}]
    net = programs("workers", celery_worker_programs=mine)["petct-worker-net"]
    assert option(net.command, "--time-limit") == 300 and "--soft-time-limit" not in net.command
    alone = programs("workers", celery_worker_programs=mine[:1])["petct-worker-net"]
    assert "--time-limit" not in alone.command


def test_a_host_without_workers_knows_the_limits_too(environment):
    mine = [{"name": "long", "queues": ["b"], "time_limit": 900}]
    known = {"host1": {}, "w": {"celery_worker_programs": mine}}
    given = {"groups": {"worker": ["w"]}, "hostvars": known, "group_names": ["web"]}
    undefined = trust_as_template("{{ undefined_here }}")
    variables = env.parse(environment(celery_worker_programs=undefined, **given))
    assert variables["CELERY_OPS_TASK_TIME_LIMIT"] == "0"


def test_a_program_has_its_own_way_of_taking_over_and_number_of_processes(programs):
    mine = [
        {"name": "gpu", "queues": ["gpu"], "handover": "replace", "concurrency": 1},
        {"name": "many", "queues": ["build:default", "Mails & more"], "autoscale": "10,2"},
    ]
    found = programs("workers", celery_worker_programs=mine)
    gpu, many = found["petct-worker-gpu"], found["petct-worker-many"]
    assert (gpu.strategy, many.strategy) == ("replace", "overlap")
    assert many.command[many.command.index("--autoscale") + 1] == "10,2" and "-c" not in many.command
    assert many.command[many.command.index("-Q") + 1] == "build:default,Mails & more"
