"""pause and resume: intake stops and comes back, over a restart of the worker, and the checks understand it."""

import json
import subprocess

import pytest
from support.control import Variants, deployed, play, start
from support.long import LONG
from support.wait import wait_until

pytestmark = pytest.mark.timeout(300)

QUEUE = "petct"
FILE = "/var/lib/petct/pause.json"


def heartbeat(host):
    return json.loads(host.output(f"cat /run/petct/{host.program('worker-default').name}.heartbeat"))


@pytest.fixture(autouse=True)
def nothing_stays_paused(host):
    yield
    if host.run(f"grep -q what {FILE}").rc == 0:
        play("resume")


def test_a_queue_is_paused_over_a_restart_and_resumed(host):
    pids = host.running()
    done = play("pause", celery_app_pause_queue=QUEUE, celery_app_pause_why="a test")
    assert done.rc == 0, done.text
    assert f"pause: paused is queue {QUEUE} on {host.name}. Still running: nothing" in done.words
    host.await_consumers(0)
    assert host.running() == pids, "the worker keeps its process"
    [entry] = json.loads(host.output(f"cat {FILE}"))
    assert (entry["what"], entry["name"], entry["until"], entry["why"]) == ("queue", QUEUE, None, "a test")
    again = play("restart", celery_app_restart="default")
    assert again.rc == 0, again.text
    host.await_consumers(0)
    assert heartbeat(host)["paused"] == [QUEUE]
    checked = play("check")
    assert checked.rc == 0, checked.text
    assert f"busy: paused: queue {QUEUE}" in checked.words
    done = play("resume", celery_app_pause_queue=QUEUE)
    assert done.rc == 0, done.text
    assert "resume: paused is nothing" in done.words
    host.await_consumers(1)
    assert host.task_comes_back()
    actions = [json.loads(line)["action"] for line in host.output("tail -n 3 /var/log/petct/deploys.log").splitlines()]
    assert actions == ["pause", "restart", "resume"]


@LONG
def test_everything_is_paused_for_a_time_and_comes_back_by_itself(host):
    done = play("pause", celery_app_pause_for="20s", celery_app_pause_scheduler=True)
    assert done.rc == 0, done.text
    assert "paused is everything until" in done.words
    assert "the scheduler until" in done.words
    wait_until(lambda: host.consumers() == 0, 15, "a quorum queue's count, which is five seconds old")
    wait_until(lambda: host.consumers() == 1, 60, "the end of the pause")
    assert play("resume").changed == {host.name: 0}


def test_check_mode_changes_nothing_and_what_there_is_not_is_refused(host):
    before = host.run(f"cat {FILE}").stdout
    done = play("pause", celery_app_pause_program="default", options=["--check"])
    assert done.rc == 0, done.text
    assert "would pause program petct-worker-default" in done.words
    done = play("pause", celery_app_pause_queue="petcd")
    assert done.rc == 2
    assert "Available: petct" in done.words
    assert host.run(f"cat {FILE}").stdout == before


@LONG
@pytest.mark.timeout(600)
def test_a_pause_outlives_a_deploy_a_rollback_and_a_reboot(host, tmp_path):
    assert play("pause", celery_app_pause_queue=QUEUE, celery_app_pause_for="2h").rc == 0
    release, second = host.current(), Variants(tmp_path).make("second")

    def assert_paused() -> None:
        host.await_consumers(0)
        wait_until(lambda: heartbeat(host).get("paused") == [QUEUE], 10, "the worker saying so")

    deployed(celery_app_source=str(second))
    assert host.current() != release
    assert_paused()
    assert play("rollback").rc == 0
    assert host.current() == release
    assert_paused()
    host.restart()
    wait_until(lambda: host.workers() and host.consumers() == 0, 90, "the host being back")
    assert_paused()
    shown = play("status")
    assert shown.rc == 0, shown.text
    assert f"paused: queue {QUEUE}" in shown.words
    metrics = "/var/lib/petct/metrics/petct.prom"
    wait_until(lambda: 'host="' in host.ask(f"grep '^celery_ops_paused.* 1$' {metrics}"), 30, "it in the metrics")
    assert play("resume").rc == 0
    host.await_consumers(1)
    assert host.task_comes_back()


@LONG
def test_under_load_a_pause_loses_nothing_and_runs_nothing_twice(host):
    settings = {"celery_app_stage": "test", "celery_app_soak_rate": 20, "celery_app_soak_duration": 20}
    load = start("soak", output=subprocess.PIPE, **settings)
    wait_until(lambda: host.running() and "celery-ops-soak" in host.ask("ps ax"), 60, "the load")
    assert play("pause", celery_app_pause_queue=QUEUE).rc == 0
    host.await_consumers(0)
    assert play("resume").rc == 0
    said = " ".join(load.communicate(timeout=240)[0].split())
    assert load.returncode == 0, said
    assert " 0 lost, 0 doubled" in said, said
