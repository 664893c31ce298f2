"""Work goes on without whoever asked for it, one process at a time; its answer waits, and another run can end it."""

import atexit
import json
import os
import signal
import sys
import time
import traceback

import pytest
from ansible.module_utils import basic
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import LEASE_TIMEOUT
from ansible_collections.celery_ops.kit.plugins.modules import deploy_lock
from support.wait import wait_until

WHO = {"id": "anna-1-1", "who": "anna@control", "what": "deploy", "at": "now", "renewed": 0}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The application's directory, as it is in /run."""
    monkeypatch.setattr(host_work, "RUN", tmp_path / "run")
    monkeypatch.setattr(host_work, "CALL", 0.5)
    monkeypatch.setattr(host_work, "EXIT_WITHIN", 0.3)
    return tmp_path / "run/shop"


class Call:
    """One call of a module that does `work`, in a process of its own, as Ansible's on the host."""

    def __init__(self, work=None, check=False, **options):
        reader, writer = os.pipe()
        self.answer = os.fdopen(reader)
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        atexit._clear()
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(writer)
        os.close(reader)
        sys.stdout = os.fdopen(1, "w")
        arguments = {"app": "shop", "run": "anna-1-1", "_ansible_check_mode": check, **options}
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        basic._ANSIBLE_PROFILE = "legacy"
        try:
            specification = {"app": {"type": "str"}, **host_work.OPTIONS}
            module = AnsibleModule(argument_spec=specification, supports_check_mode=True)
            said = host_work.detach(module, "workers")
            try:
                module.exit_json(pid=os.getpid(), did=work(said))
            except host_work.Interrupted as interrupted:
                module.fail_json(msg=str(interrupted))
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)

    def result(self):
        os.waitpid(self.pid, 0)
        said = self.answer.read()  # to its end: nobody else may hold the connection open
        return json.loads(said)

    def lose(self):
        """What happens when the connection does not outlive the module."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def last(seconds, then="done"):
    """Work that takes so long."""

    def work(_said):
        time.sleep(seconds)
        return then

    return work


def hold_lease(here, **changes):
    host_work.directory_of("shop")
    (here / "deploy.lock").write_text(json.dumps({**WHO, "renewed": time.time(), **changes}))


def worker(here):
    """The process that works, once it has said its pid."""
    return wait_until(
        lambda: (one := host_work.worker_of(here)) and one.get("pid") and one,
        10,
        "a process at work",
    )


def rest(here):
    return sorted(path.name for path in here.iterdir())


def test_what_is_quick_is_answered_at_once_and_by_another_process(here):
    call = Call(last(0))
    answer = call.result()
    assert answer["did"] == "done" and answer["pid"] != call.pid
    assert rest(here) == ["work"], "the answer was fetched"


def test_what_takes_long_is_asked_for_in_short_calls(here, tmp_path):
    done = tmp_path / "done"

    def work(_said):
        wait_until(done.exists, 60, "what ends the work")
        return "done"

    first = Call(work).result()
    assert Call(job=first["running"]).result()["running"] == first["running"]
    done.touch()
    assert Call(job=first["running"]).result()["did"] == "done"
    assert rest(here) == ["work"]


def test_the_work_goes_on_when_the_connection_is_lost_and_nobody_else_begins(here):
    hold_lease(here)
    call = Call(last(1))
    said = worker(here)
    call.lose()
    assert {key: said[key] for key in ("who", "what", "phase", "run")} == {
        "who": "anna@control", "what": "deploy", "phase": "workers", "run": "anna-1-1",
    }  # fmt: skip
    refused = Call(last(0)).result()
    assert "Another process works on this host: deploy of anna@control, phase workers, since" in refused["msg"]
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    assert Call(job=said["job"]).result()["did"] == "done"


def test_another_run_ends_it_and_waits_for_its_end(here):
    def work(_said):
        try:
            time.sleep(60)
        except host_work.Interrupted:
            os.kill(os.getpid(), signal.SIGTERM)  # once is enough: nothing interrupts what is undone
            time.sleep(0.3)
            return "went back"

    call = Call(work)
    said = worker(here)
    call.lose()
    assert host_work.end(here, "bert", "")["job"] == said["job"]
    assert host_work.end(here, "bert", said["job"]) is None
    assert Call(job=said["job"]).result()["did"] == "went back"


def test_a_run_does_not_end_its_own_work(here):
    call = Call(last(0.3))
    worker(here)
    assert host_work.end(here, "anna-1-1", "") is None
    assert call.result()["did"] == "done"


def test_a_process_that_dies_without_an_answer_is_reported_with_what_to_type(here):
    call = Call(last(60))
    os.kill(worker(here)["pid"], signal.SIGKILL)
    answer = call.result()
    assert answer["failed"] and "ended without an answer" in answer["msg"]
    assert "playbooks/rollback.yml" in answer["msg"]
    assert Call(last(0)).result()["did"] == "done", "the lock died with it"
    assert rest(here) == ["work"], "and what it had left was removed"


def test_a_host_that_was_started_again_knows_no_such_job(here):
    assert "ended without an answer" in Call(job="0123456789ab").result()["msg"]


def test_a_run_that_lost_its_lock_does_nothing_more(here):
    hold_lease(here, id="bert", who="bert@laptop")
    answer = Call(last(0)).result()
    assert "This run has lost the deploy lock of shop to bert@laptop (deploy since now)" in answer["msg"]
    hold_lease(here, id="bert", renewed=time.time() - LEASE_TIMEOUT - 1)
    assert Call(last(0)).result()["did"] == "done"


def test_an_answer_and_the_lock_are_for_root_alone_whatever_the_umask(here):
    before = os.umask(0o077)
    try:
        running = Call(last(1)).result()["running"]
    finally:
        os.umask(before)
    assert here.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in here.iterdir()} == {0o600}
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    assert (here / f"answer-{running}").stat().st_mode & 0o777 == 0o600


def test_an_answer_that_nobody_fetched_is_removed_in_time(here):
    running = Call(last(1)).result()["running"]
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    Call(last(0)).result()
    assert (here / f"answer-{running}").exists()
    os.utime(here / f"answer-{running}", (0, 0))
    Call(last(0)).result()
    assert rest(here) == ["work"]


def test_an_error_that_nobody_foresaw_is_in_the_answer(here):
    def work(_said):
        raise ValueError("unforeseen")

    call = Call(work)
    os.waitpid(call.pid, 0)
    assert "ValueError: unforeseen" in call.answer.read()


def test_check_mode_and_no_application_need_none_of_it(here):
    assert Call(last(0), check=True).result()["did"] == "done"
    assert Call(last(0), app="").result()["did"] == "done"
    assert not here.exists()


def test_a_run_directory_that_cannot_be_written_is_said(here):
    here.parent.parent.joinpath("run").write_text("")
    assert "can't be written" in Call(last(0)).result()["msg"]


BERT = {"app": "app", "id": "bert", "who": "bert@laptop", "what": "rollback", "wait": 0, "told": ""}
ANNA = {**BERT, "id": "anna", "who": "anna@control", "what": "deploy"}
OLD, NEW = "app-worker-a-11111111", "app-worker-a-22222222"


@pytest.fixture
def interrupted(host):
    """A handover of Anna's that was interrupted by whatever took the control node, at a point of the test's choice."""
    lock = deploy_lock.Lock("app", host_work.directory_of("app"))

    def begin(old, new, point):
        host.apply([old], app="app")
        deploy_lock.hold(lock, ANNA)
        call = host.begin([new], app="app", run="anna", phase="workers")
        wait_until(point, 10, "the point to interrupt at")
        call.kill()
        deploy_lock.free(lock, ANNA)  # as the keeper does
        return lock

    return begin


def take_over(lock):
    """As the action plugin does; return what it would tell."""
    answer, told = deploy_lock.hold(lock, BERT), None
    while told := answer.get("working") or None:
        answer = deploy_lock.hold(lock, {**BERT, "told": told["job"]})
        worker = told
    return worker


def test_a_rollback_in_the_drain_of_an_interrupted_deploy_does_not_collide_with_it(host, interrupted):
    old, new = host.program(OLD, ["--drain", 2], settings=["stopwaitsecs=60"]), host.program(NEW)
    lock = interrupted(old, new, lambda: "term" in host.events(OLD))
    begun = time.monotonic()
    assert take_over(lock)["phase"] == "workers"
    assert time.monotonic() - begun < 1.5, "it waits for no drain, which ends by itself"
    assert host.states()[NEW] == "RUNNING" and host.states()[OLD] == "STOPPING"
    [program] = host.apply([old], app="app", run="bert")["programs"]
    assert program["from"] == [OLD, NEW], "another generation, alike, took over from both"
    assert host.states() == {program["name"]: "RUNNING"}
    assert "end" in host.events(OLD), "it was not killed"


def test_an_interrupted_deploy_that_has_proven_nothing_goes_back_before_the_next_run_begins(host, interrupted):
    old, new = host.program(OLD), host.program(NEW, ready=["false"], ready_timeout=60)
    lock = interrupted(old, new, lambda: "ready" in host.events(NEW))
    pid = host.pids()[OLD]
    assert take_over(lock)["who"] == "anna@control"
    assert host.pids() == {OLD: pid}
    assert not host.apply([old], app="app", run="bert")["changed"]


def test_an_interrupted_deploy_that_is_left_alone_ends_its_step(host, interrupted):
    old, new = host.program(OLD, ["--drain", 1], settings=["stopwaitsecs=60"]), host.program(NEW)
    lock = interrupted(old, new, lambda: "term" in host.events(OLD))
    assert host_work.worker_of(lock.directory)["phase"] == "workers"
    wait_until(lambda: host_work.worker_of(lock.directory) is None, 10, "the end of the work")
    assert host.states() == {NEW: "RUNNING"}
    assert "working" not in deploy_lock.hold(lock, BERT)
