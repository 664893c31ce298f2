"""Who gets the lock, who keeps it, who may let go of it. With playbooks and their ends: tests/deploy/test_lock.py."""

import json
import os
import subprocess
import sys

import deploy_lock
import pytest
from action.deploy_lock import has_ended, run_id

ANNA = {"app": "shop", "id": "anna", "who": "anna@control", "what": "deploy", "wait": 0}
BERT = {**ANNA, "id": "bert", "who": "bert@laptop"}


@pytest.fixture
def lock(tmp_path):
    lock = deploy_lock.Lock("shop")
    lock.path, lock.audit = tmp_path / "deploy.lock", tmp_path / "deploys.log"
    return lock


def grow_old(lock, seconds):
    holder = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps({**holder, "renewed": holder["renewed"] - seconds}))


def test_the_first_gets_it_and_the_second_reads_who_that_is(lock):
    assert deploy_lock.hold(lock, ANNA) == {"note": ""}
    answer = deploy_lock.hold(lock, BERT)
    assert answer["failed"]
    assert answer["holder"] == "anna"
    assert "shop is locked by anna@control for deploy since" in answer["msg"]
    assert deploy_lock.hold(lock, ANNA) == {"note": ""}


def test_a_stale_one_is_taken_over_and_that_is_said(lock):
    deploy_lock.hold(lock, ANNA)
    grow_old(lock, deploy_lock.STALE_AFTER - 2)
    assert "failed" in deploy_lock.hold(lock, BERT)
    grow_old(lock, 2)
    assert "anna@control" in deploy_lock.hold(lock, BERT)["note"]
    assert deploy_lock.renew(lock, ANNA) == {"ours": False}


def test_a_renewed_one_is_not_stale(lock):
    deploy_lock.hold(lock, ANNA)
    grow_old(lock, deploy_lock.STALE_AFTER)
    assert deploy_lock.renew(lock, ANNA) == {"ours": True}
    assert "failed" in deploy_lock.hold(lock, BERT)


def test_only_its_holder_frees_it(lock):
    deploy_lock.hold(lock, ANNA)
    assert deploy_lock.free(lock, BERT) == {"note": "The lock is not ours."}
    assert lock.read()["id"] == "anna"
    assert deploy_lock.free(lock, ANNA) == {}
    assert lock.read() == {}


def test_unlocking_is_noted_in_the_audit_log(lock):
    deploy_lock.hold(lock, ANNA)
    assert deploy_lock.unlock(lock, BERT)["changed"]
    entry = json.loads(lock.audit.read_text())
    assert (entry["who"], entry["action"]) == ("bert@laptop", "unlock")
    assert "anna@control" in entry["outcome"]
    assert "changed" not in deploy_lock.unlock(lock, BERT)


def test_a_run_of_this_control_node_that_is_over_is_known():
    assert not has_ended(run_id(os.getpid()))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = run_id(child.pid)
    assert not has_ended(run)
    child.communicate(b"\n")
    assert has_ended(run)


def test_nothing_is_known_of_runs_elsewhere():
    assert not has_ended("another-node-1-1")
    assert not has_ended("")
