"""Who gets the lock, who keeps it, who may let go of it. With playbooks and their ends: tests/deploy/test_lock.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.celery_ops.kit.plugins.action.deploy_lock import OURS, keep, take
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.modules import deploy_lock
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import has_ended, run_id
from support.wait import wait_until

ROOT = Path(__file__).resolve().parents[3]
ANNA = {"app": "shop", "id": "anna", "who": "anna@control", "what": "deploy", "wait": 0, "told": ""}
BERT = {**ANNA, "id": "bert", "who": "bert@laptop"}


@pytest.fixture
def lock(tmp_path):
    lock = deploy_lock.Lock("shop", tmp_path)
    lock.audit, lock.before = tmp_path / "deploys.log", tmp_path / "srv.lock"
    return lock


def grow_old(lock, seconds):
    holder = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps({**holder, "monotonic": holder["monotonic"] - seconds}))


def test_the_first_gets_it_and_the_second_reads_who_that_is(lock):
    assert deploy_lock.hold(lock, ANNA) == {"note": ""}
    answer = deploy_lock.hold(lock, BERT)
    assert answer["failed"]
    assert answer["holder"] == "anna"
    assert "shop is locked by anna@control for deploy since" in answer["msg"]
    assert deploy_lock.hold(lock, ANNA) == {"note": ""}


def test_a_stale_one_is_taken_over_and_that_is_said(lock):
    deploy_lock.hold(lock, ANNA)
    grow_old(lock, deploy_lock.LEASE_TIMEOUT - 2)
    assert "failed" in deploy_lock.hold(lock, BERT)
    grow_old(lock, 2)
    assert "anna@control" in deploy_lock.hold(lock, BERT)["note"]
    assert deploy_lock.renew(lock, ANNA) == {"ours": False}


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_neither_ends_a_live_one_nor_keeps_a_dead_one(lock, monkeypatch, jump):
    deploy_lock.hold(lock, ANNA)
    at = time.time() + jump
    monkeypatch.setattr(time, "time", lambda: at)
    assert "last renewed 0 s ago" in deploy_lock.hold(lock, BERT)["msg"]
    grow_old(lock, deploy_lock.LEASE_TIMEOUT + 1)
    assert "last renewed 46 s ago was stale and is taken over" in deploy_lock.hold(lock, BERT)["note"]


@pytest.mark.parametrize("change", [{"boot": "another"}, {"monotonic": time.monotonic() + 1e6}])
def test_one_of_an_earlier_boot_is_stale(lock, change):
    deploy_lock.hold(lock, ANNA)
    lock.path.write_text(json.dumps({**json.loads(lock.path.read_text()), **change}))
    assert "last renewed before this host was started again was stale" in deploy_lock.hold(lock, BERT)["note"]


def test_a_version_before_reads_when_it_was_renewed(lock):
    deploy_lock.hold(lock, ANNA)
    assert time.time() - lock.read()["renewed"] < 5


def test_a_renewed_one_is_not_stale(lock):
    deploy_lock.hold(lock, ANNA)
    grow_old(lock, deploy_lock.LEASE_TIMEOUT)
    assert deploy_lock.renew(lock, ANNA) == {"ours": True}
    assert "failed" in deploy_lock.hold(lock, BERT)


def test_only_its_holder_frees_it(lock):
    deploy_lock.hold(lock, ANNA)
    assert deploy_lock.free(lock, BERT) == {"ours": False, "note": "The lock is not ours."}
    assert lock.read()["id"] == "anna"
    assert deploy_lock.free(lock, ANNA) == {"ours": True, "note": ""}
    assert lock.read() == {}


def test_unlocking_is_noted_in_the_audit_log(lock):
    deploy_lock.hold(lock, ANNA)
    assert deploy_lock.unlock(lock, BERT)["changed"]
    entry = json.loads(lock.audit.read_text())
    assert (entry["who"], entry["action"]) == ("bert@laptop", "unlock")
    assert "anna@control" in entry["outcome"]
    assert "changed" not in deploy_lock.unlock(lock, BERT)


def test_a_full_disk_stops_nobody_from_unlocking(lock):
    lock.audit = Path("/dev/full")
    deploy_lock.hold(lock, ANNA)
    assert "could not be written to /dev/full: No space left" in deploy_lock.unlock(lock, BERT)["note"]
    assert lock.read() == {}


def test_the_lock_of_a_version_before_is_honoured_while_it_lives(lock):
    holder = {"id": "anna", "who": "anna@control", "what": "deploy", "at": "now", "renewed": time.time()}
    lock.before.write_text(json.dumps(holder))
    (lock.before.parent / ".srv.lock.guard").touch()
    assert deploy_lock.hold(lock, BERT)["holder"] == "anna"
    lock.before.write_text(json.dumps({**holder, "renewed": time.time() - deploy_lock.LEASE_TIMEOUT}))
    assert "was stale and is taken over" in deploy_lock.hold(lock, BERT)["note"]
    assert not lock.before.exists() and not (lock.before.parent / ".srv.lock.guard").exists()


def test_the_lease_says_nothing_secret_and_anybody_may_read_it(lock, monkeypatch):
    before = os.umask(0o077)
    try:
        deploy_lock.hold(lock, ANNA)
    finally:
        os.umask(before)
    assert lock.path.stat().st_mode & 0o777 == 0o644
    # Whoever could open this one could hold up every deploy.
    assert (lock.directory / ".deploy.lock.guard").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def at_work(lock):
    """The work of Anna's run on the host, whose control node is gone."""
    program = """
import os, signal, sys, time
from pathlib import Path
sys.path.append(sys.argv[2])
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
signal.signal(signal.SIGTERM, host_work.interrupt)
work = host_work.Work(host_work.take(Path(sys.argv[1])))
work.say(job="1", run="anna", who="anna@control", what="deploy", phase="workers", since="now", ends_within=60,
         pid=os.getpid())
try:
    time.sleep(60)
except host_work.Interrupted:
    time.sleep(0.5)
"""
    words = [sys.executable, "-c", program, str(lock.directory), str(ROOT / "collections")]
    process = subprocess.Popen(words)
    wait_until(lambda: (host_work.worker_of(lock.directory) or {}).get("pid"), 10, "a process at work")
    yield process
    process.kill()
    process.wait()


def test_the_next_run_ends_the_work_of_one_that_is_over_before_it_begins(lock, at_work):
    deploy_lock.hold(lock, ANNA)
    deploy_lock.free(lock, ANNA)  # as the keeper does
    answer = deploy_lock.hold(lock, BERT)
    assert answer["working"]["phase"] == "workers" and answer["working"]["who"] == "anna@control"
    assert lock.read()["id"] == "bert", "nobody else gets it meanwhile"
    assert deploy_lock.hold(lock, {**ANNA, "id": "carl"})["holder"] == "bert"
    assert "working" not in deploy_lock.hold(lock, {**BERT, "told": answer["working"]["job"]})
    assert at_work.wait(5) == 0, "it ended by itself, when it was told to"


def test_of_two_that_take_over_at_the_same_moment_one_gets_it(lock, at_work):
    deploy_lock.hold(lock, ANNA)
    grow_old(lock, deploy_lock.LEASE_TIMEOUT + 1)
    answers = []

    def try_it(run):
        own = deploy_lock.Lock("shop", lock.directory)
        own.before = lock.before
        answers.append(deploy_lock.hold(own, {**BERT, "id": run}))

    rivals = [Thread(target=try_it, args=(run,)) for run in ("bert", "carl")]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert sorted("failed" in answer for answer in answers) == [False, True]
    assert [answer for answer in answers if "working" in answer], "and it sees to the work that was left"


def test_a_live_run_is_refused_and_its_work_is_let_be(lock, at_work):
    deploy_lock.hold(lock, ANNA)
    assert deploy_lock.hold(lock, BERT)["failed"]
    with pytest.raises(subprocess.TimeoutExpired):
        at_work.wait(0.3)


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


def test_the_keeper_of_a_run_that_is_over_frees_its_lock_once_it_can_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "ansible-local"))

    def ask(state):
        packed = tmp_path / "ansible-local/ansiballz_cache"
        if not packed.exists():
            packed.mkdir(parents=True)  # as Ansible, which packs the module anew
            raise AnsibleConnectionFailure("the host can't be reached just now")
        (tmp_path / state).touch()
        return {"note": ""}

    over = subprocess.Popen(["true"])
    over.wait()
    reader, writer = os.pipe()
    os.write(writer, OURS)
    keeper = os.fork()
    if keeper == 0:
        try:
            keep(over.pid, "", ask, reader)
        finally:
            os._exit(0)
    os.waitpid(keeper, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["freed"]


@pytest.fixture
def playbook():
    """A run of ansible-playbook, as far as a keeper can see."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def run_task(playbook, lock, when_asked=lambda held: held()):
    """Take the lock for a run, in a process of its own as Ansible's that runs the task; return its exit status."""
    options = {**ANNA, "id": run_id(playbook.pid)}

    def ask(state="held", **_):
        if state == "held":
            return when_asked(lambda: deploy_lock.hold(lock, options))
        return deploy_lock.STATES[state](lock, options)

    task = os.fork()
    if task == 0:
        try:
            take(playbook.pid, ask, 0)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(task, 0)[1])


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_is_interrupted_in_the_moment_in_which_it_gets_the_lock_frees_it(lock, playbook):
    assert run_task(playbook, lock, lambda held: (held(), killed())) == -signal.SIGKILL
    assert lock.read()["id"] == run_id(playbook.pid)
    playbook.kill()
    playbook.wait()
    wait_until(lambda: not lock.read(), 20, "a free lock")


def test_a_host_that_takes_the_lock_for_a_run_that_has_ended_already_frees_it(lock, playbook):
    options = {**ANNA, "id": run_id(playbook.pid)}
    assert run_task(playbook, lock, lambda _held: killed()) == -signal.SIGKILL
    asked = lock.directory / ".deploy.lock.guard"
    playbook.kill()
    playbook.wait()
    wait_until(asked.exists, 20, "the keeper at the lock")
    deploy_lock.hold(lock, options)
    wait_until(lambda: not lock.read(), 20, "a free lock")


def test_the_lock_is_kept_while_the_run_lives_and_freed_at_its_end(lock, playbook):
    assert run_task(playbook, lock) == 0
    assert lock.read()["id"] == run_id(playbook.pid)
    playbook.communicate(b"\n")
    wait_until(lambda: not lock.read(), 20, "a free lock")


def test_whoever_does_not_get_the_lock_leaves_no_keeper(lock, playbook):
    deploy_lock.hold(lock, BERT)
    reader, writer = os.pipe()
    assert run_task(playbook, lock) == 0
    os.close(writer)
    assert os.read(reader, 1) == b"", "no process of the task's has it open any more"
    assert lock.read()["id"] == "bert"
