"""restart: by handover, under load; what runs afterwards is what a deploy wants."""

import json
import re
import subprocess

import pytest
from support.control import play, start
from support.long import LONG

pytestmark = pytest.mark.timeout(300)

LOAD = {"celery_app_stage": "test", "celery_app_soak_rate": 20, "celery_app_soak_duration": 15}


def test_a_restart_under_load_loses_nothing_and_leaves_no_moment_without_a_consumer(host):
    before = {program.kind: program for program in host.programs()}
    load = start("soak", output=subprocess.PIPE, **LOAD, celery_app_soak_patience=30)
    done = play("restart", celery_app_restart="default")
    said = load.communicate(timeout=240)[0]
    assert done.rc == 0, done.text
    assert re.search(rf"restart: petct-worker-default ready in [\d.]+ s.* on {host.name}", done.words)
    assert load.returncode == 0, said
    words = " ".join(said.split())
    assert " 0 lost, 0 doubled" in words, words
    assert re.search(r"; 0 of [1-9]\d* samples without a consumer", words), words
    after = {program.kind: program for program in host.programs()}
    restarted = {kind for kind in after if after[kind].pid != before[kind].pid}
    assert restarted == {"worker-default"}
    assert {program.state for program in after.values()} == {"RUNNING"}
    entry = json.loads(host.output("tail -n 1 /var/log/petct/deploys.log"))
    assert (entry["action"], entry["changed"]) == ("restart", ["petct-worker-default"])


@LONG
def test_after_it_a_deploy_has_nothing_to_do_and_the_doctor_knows_the_new_processes(host):
    pids = host.running()
    again = play("deploy")
    assert again.rc == 0, again.text
    assert again.changed[host.name] == 0
    assert host.running() == pids
    assert "programs-recorded" not in play("doctor").text


def test_a_program_that_there_is_not_is_refused(host):
    pids = host.running()
    done = play("restart", celery_app_restart="defualt")
    assert done.rc == 2
    assert "there is no program defualt. Nothing was changed. Available: default, scheduler" in done.words
    assert host.running() == pids
