"""Work goes on without whoever asked for it, one process at a time; its answer waits, and another run can end it."""

import json
import os
import signal
import time

import pytest
from ansible.module_utils import basic
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.deploy_lease import renewed
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import LEASE_TIMEOUT
from ansible_collections.celery_ops.kit.plugins.modules import deploy_lock
from support.module_run import ModuleRun
from support.wait import wait_until

WHO = {"id": "anna-1-1", "who": "anna@control", "what": "deploy", "at": "now", "renewed": 0}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The application's directory, as it is in /run."""
    monkeypatch.setattr(host_work, "RUN", tmp_path / "run")
    monkeypatch.setattr(host_work, "CALL", 0.5)
    monkeypatch.setattr(host_work, "EXIT_WITHIN", 0.3)
    return tmp_path / "run/shop"


def call(work=None, check=False, **options):
    """One call of a module that does `work`."""

    def module():
        specification = {"app": {"type": "str"}, **host_work.OPTIONS}
        module = AnsibleModule(argument_spec=specification, supports_check_mode=True)
        said = host_work.detach(module, "workers")
        try:
            module.exit_json(pid=os.getpid(), did=work(said))
        except host_work.Interrupted as interrupted:
            module.fail_json(msg=str(interrupted))

    return ModuleRun(module, {"app": "shop", "run": "anna-1-1", "_ansible_check_mode": check, **options})


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
    first = call(last(0))
    answer = first.result()
    assert answer["did"] == "done" and answer["pid"] != first.pid
    assert rest(here) == ["work"], "the answer was fetched"


def test_what_takes_long_is_asked_for_in_short_calls(here, tmp_path):
    done = tmp_path / "done"

    def work(_said):
        wait_until(done.exists, 60, "what ends the work")
        return "done"

    first = call(work).result()
    assert call(job=first["running"]).result()["running"] == first["running"]
    done.touch()
    assert call(job=first["running"]).result()["did"] == "done"
    assert rest(here) == ["work"]


def test_what_takes_long_is_said_without_the_files_that_its_process_removes_when_it_ends(here, monkeypatch):
    encoder = basic._json.get_module_encoder

    def imported(*arguments):
        if os.getsid(0) != os.getpid():  # the process that waits
            raise FileNotFoundError("the module's zip file")
        return encoder(*arguments)

    monkeypatch.setattr(basic._json, "get_module_encoder", imported)
    first = call(last(1)).result()
    wait_until(lambda: call(job=first["running"]).result().get("did") == "done", 10, "the answer")


def test_the_work_goes_on_when_the_connection_is_lost_and_nobody_else_begins(here):
    hold_lease(here)
    first = call(last(1))
    said = worker(here)
    first.kill()
    assert {key: said[key] for key in ("who", "what", "phase", "run")} == {
        "who": "anna@control", "what": "deploy", "phase": "workers", "run": "anna-1-1",
    }  # fmt: skip
    refused = call(last(0)).result()
    assert "Another process works on this host: deploy of anna@control, phase workers, since" in refused["msg"]
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    assert call(job=said["job"]).result()["did"] == "done"


def test_another_run_ends_it_and_waits_for_its_end(here):
    def work(_said):
        try:
            time.sleep(60)
        except host_work.Interrupted:
            os.kill(os.getpid(), signal.SIGTERM)  # once is enough: nothing interrupts what is undone
            time.sleep(0.3)
            return "went back"

    first = call(work)
    said = worker(here)
    first.kill()
    assert host_work.end(here, "bert", "")["job"] == said["job"]
    assert host_work.end(here, "bert", said["job"]) is None
    assert call(job=said["job"]).result()["did"] == "went back"


def test_a_run_does_not_end_its_own_work(here):
    first = call(last(0.3))
    worker(here)
    assert host_work.end(here, "anna-1-1", "") is None
    assert first.result()["did"] == "done"


def test_a_process_that_dies_without_an_answer_is_reported_with_what_to_type(here):
    first = call(last(60))
    os.kill(worker(here)["pid"], signal.SIGKILL)
    answer = first.result()
    assert answer["failed"] and "ended without an answer" in answer["msg"]
    assert "playbooks/rollback.yml" in answer["msg"]
    assert call(last(0)).result()["did"] == "done", "the lock died with it"
    assert rest(here) == ["work"], "and what it had left was removed"


def test_a_host_that_was_started_again_knows_no_such_job(here):
    assert "ended without an answer" in call(job="0123456789ab").result()["msg"]


def test_a_run_that_lost_its_lock_does_nothing_more(here):
    hold_lease(here, id="bert", who="bert@laptop")
    answer = call(last(0)).result()
    assert "This run has lost the deploy lock of shop to bert@laptop (deploy since now)" in answer["msg"]
    hold_lease(here, id="bert", renewed=time.time() - LEASE_TIMEOUT - 1)  # as an earlier version writes it
    assert call(last(0)).result()["did"] == "done"
    (here / "deploy.lock").write_text(json.dumps({**renewed({**WHO, "id": "bert"}), "renewed": 0}))
    assert "This run has lost the deploy lock" in call(last(0)).result()["msg"], "the clock was set, not the lease lost"


def test_an_answer_and_the_lock_are_for_root_alone_whatever_the_umask(here):
    before = os.umask(0o077)
    try:
        running = call(last(1)).result()["running"]
    finally:
        os.umask(before)
    assert here.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in here.iterdir()} == {0o600}
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    assert (here / f"answer-{running}").stat().st_mode & 0o777 == 0o600


def test_an_answer_that_nobody_fetched_is_removed_in_time(here):
    running = call(last(1)).result()["running"]
    wait_until(lambda: host_work.worker_of(here) is None, 10, "the end of the work")
    call(last(0)).result()
    assert (here / f"answer-{running}").exists()
    os.utime(here / f"answer-{running}", (0, 0))
    call(last(0)).result()
    assert rest(here) == ["work"]


def test_an_error_that_nobody_foresaw_is_in_the_answer(here):
    def work(_said):
        raise ValueError("unforeseen")

    first = call(work)
    os.waitpid(first.pid, 0)
    assert "ValueError: unforeseen" in first.answer.read()


def test_check_mode_and_no_application_need_none_of_it(here):
    assert call(last(0), check=True).result()["did"] == "done"
    assert call(last(0), app="").result()["did"] == "done"
    assert not here.exists()


def test_a_run_directory_that_cannot_be_written_is_said(here):
    here.parent.parent.joinpath("run").write_text("")
    assert "can't be written" in call(last(0)).result()["msg"]


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
    done = host.directory / "done"
    old, new = host.program(OLD, ["--drain-until", done], settings=["stopwaitsecs=60"]), host.program(NEW)
    lock = interrupted(old, new, lambda: "term" in host.events(OLD))
    begun = time.monotonic()
    assert take_over(lock)["phase"] == "workers"
    assert time.monotonic() - begun < 1.5, "it waits for no drain, which ends by itself"
    assert host.states()[NEW] == "RUNNING" and host.states()[OLD] == "STOPPING"
    rollback = host.begin([old], app="app", run="bert")
    wait_until(lambda: set(host.states()) - {OLD, NEW}, 30, "another generation")
    done.touch()
    [program] = host.succeeded(rollback)["programs"]
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
