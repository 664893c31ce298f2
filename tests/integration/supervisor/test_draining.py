"""supervisor_programs while old generations finish their tasks, which may take longer than a call."""

import signal
import time
from pathlib import Path

import pytest
from support.supervisord import A1, A2, A3, B1, S1, S2, actions, scheduler, serving
from support.wait import wait_until


def test_an_old_generation_that_does_not_finish_is_killed_and_reported(host):
    host.apply([host.program(A1, ["--drain", 60], settings=["stopwaitsecs=1"])])
    result = host.apply([host.program(A2)])
    assert result["programs"][0]["killed"] == [A1]
    assert set(host.pids()) == {A2}


def test_a_drain_longer_than_stop_timeout_is_left_to_itself(host):
    done = host.directory / "done"
    host.apply([host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"])])
    result = host.apply([host.program(A2, stop_timeout=1)])
    assert result["programs"][0]["draining"] == [A1]
    assert host.states() == {A1: "STOPPING", A2: "RUNNING"} and host.links() == {A1}
    done.touch()
    result = host.apply([host.program(A2)])
    assert actions(result) == {A2: "drained"} and host.states() == {A2: "RUNNING"}
    assert set(host.files()) == {f"{A2}.conf"}
    assert "end" in host.events(A1)
    assert not host.apply([host.program(A2)])["changed"]


def test_a_call_may_end_while_old_generations_drain_and_one_without_a_limit_waits_for_them(host):
    done = host.directory / "done"
    host.apply([host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"]), host.program(B1)])
    new = [host.program(A2), host.program(B1)]
    result = host.apply(new, drain_wait=0)
    assert result["draining"] == [A1] and not result.get("warnings")
    pids = host.pids()
    result = host.apply(new, drain_wait=0)
    assert actions(result) == {A2: "drained", B1: "unchanged"} and result["draining"] == [A1]
    assert not result["changed"], "what drains already is only looked at"
    told = time.time() - host.events(A1)["term"]
    done.touch()
    result = host.apply(new)
    assert actions(result) == {A2: "drained", B1: "unchanged"} and result["draining"] == []
    assert result["programs"][0]["seconds"]["drain"] >= told - 0.5, "since it was told, not since this call"
    assert host.pids() == {name: pid for name, pid in pids.items() if name != A1} and serving(host, A2, B1)
    assert not host.apply(new)["changed"]


def test_a_kill_is_reported_by_the_call_that_sees_it(host):
    host.apply([host.program(A1, ["--drain", 60], settings=["stopwaitsecs=2"])])
    assert host.apply([host.program(A2)], drain_wait=0)["draining"] == [A1]
    wait_until(lambda: host.states()[A1] == "STOPPED", 10, f"{A1} STOPPED")
    assert host.apply([host.program(A2)])["programs"][0]["killed"] == [A1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_while_the_old_drains_it_ends_at_once(host, number):
    host.apply([host.program(A1, ["--drain", 30], settings=["stopwaitsecs=60"])])
    process = host.begin([host.program(A2)])
    wait_until(lambda: host.states().get(A1) == "STOPPING", 10, f"{A1} STOPPING")
    process.signal(number)
    result = process.result()
    assert result["failed"] and result["interrupted"] and result["draining"] == [A1]
    assert f"Interrupted by {number.name}" in result["msg"]
    assert f"These finish by themselves: {A1}." in result["msg"] and result["release_fault"] is False
    assert host.states() == {A1: "STOPPING", A2: "RUNNING"} and host.links() == {A1}


def draining_a1(host):
    """A1 is at its last task, until the file that this returns is there; A2 serves."""
    done = host.directory / "done"
    host.apply([host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"])])
    assert host.apply([host.program(A2)], drain_wait=0)["draining"] == [A1]
    return done


def test_the_next_deploy_does_not_wait_for_what_drains_since_an_earlier_one(host):
    draining_a1(host)
    begun = time.monotonic()
    result = host.apply([host.program(A3)], drain_wait=20)
    assert time.monotonic() - begun < 10
    assert actions(result) == {A3: "handed_over"} and result["draining"] == [A1]
    assert host.states() == {A1: "STOPPING", A3: "RUNNING"} and host.links() == {A1}


def test_a_program_to_be_replaced_waits_for_all_that_drains(host):
    done = draining_a1(host)
    call = host.begin([host.program(A3)], strategy="replace", drain_wait=0)
    wait_until(lambda: host.states().get(A2) == "STOPPED", 10, f"{A2} STOPPED")
    assert A3 not in host.states(), "never do two run"
    done.touch()
    assert actions(call.result()) == {A3: "replaced"}
    assert host.events(A3)["start"] > host.events(A1)["end"]


def test_going_back_to_a_generation_that_still_drains_starts_it_beside_itself(host):
    done = draining_a1(host)
    old, drain = host.program(A1), host.pids()[A1]
    result = host.apply([old], drain_wait=5)
    [again] = [name for name in host.pids() if name != A1 and host.states()[name] == "RUNNING"]
    assert again.startswith("app-worker-a-") and again not in (A1, A2)
    assert actions(result) == {again: "handed_over"} and host.pids()[A1] == drain
    assert host.conf_d.joinpath(f"{again}.conf").read_text() == old["conf"].replace(A1, again)
    pids = host.pids()
    assert not host.apply([old], drain_wait=5)["changed"], "it runs already, under the other name"
    assert host.pids() == pids
    done.touch()
    host.apply([old])
    assert host.pids() == {again: pids[again]} and host.links() == set()
    assert not host.apply([old])["changed"]


def deploy(host, *programs, **more):
    """As a playbook calls it: for an application, whose work goes on by itself on the host."""
    return host.apply(programs, app="app", **{"drain_wait": 0, **more})


def waiting(host):
    """The processes that wait for what drains: they hold the lock's file."""
    [lock] = host.directory.glob("run-celery-ops/app/drain-*")
    return {path.parent.parent.name for path in Path("/proc").glob("[0-9]*/fd/*") if leads_to(path, lock)}


def leads_to(path, file):
    try:
        return path.readlink() == file
    except OSError:
        return False


def test_what_drains_is_forgotten_when_it_has_ended_though_no_run_comes(host):
    done = host.directory / "done"
    deploy(host, host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"]))
    assert deploy(host, host.program(A2))["draining"] == [A1]
    assert deploy(host, host.program(A3), drain_wait=5)["draining"] == [A1], "no run waits for the process that waits"
    assert host.states() == {A1: "STOPPING", A3: "RUNNING"}
    assert len(waiting(host)) == 1, "one process waits for all that drains"
    done.touch()
    wait_until(lambda: set(host.states()) == {A3}, 10, f"{A3} alone")
    wait_until(lambda: set(host.files()) == {f"{A3}.conf"}, 10, f"the conf of {A3} alone")
    assert host.rpc.reloadConfig() == [[[], [], []]] and list(host.volatile.iterdir()) == []


def test_what_drains_is_stopped_again_where_supervisord_starts_anew(host):
    done = host.directory / "done"
    deploy(host, host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"]))
    assert deploy(host, host.program(A2))["draining"] == [A1]
    host.stop()
    done.touch()
    host.start()
    wait_until(
        lambda: set(host.states()) == {A2} and set(host.files()) == {f"{A2}.conf"},
        10,
        f"{A2} alone",
    )


def test_what_a_call_about_more_programs_leaves_is_forgotten_while_what_an_earlier_one_left_still_drains(host):
    done, finished = host.directory / "done", host.directory / "finished"
    worker, scheduler1 = host.program(A2), scheduler(host, S1, "--drain-until", finished, settings=["stopwaitsecs=60"])
    deploy(host, host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"]))
    assert deploy(host, worker)["draining"] == [A1]
    both = "app-worker-,app-scheduler"
    deploy(host, worker, scheduler1, prefix=both)
    result = deploy(host, worker, scheduler(host, S2), prefix=both)
    assert set(result["draining"]) == {A1, S1}
    finished.touch()
    wait_until(lambda: set(host.states()) == {A1, A2, S2}, 10, f"the end of {S1} alone")
    assert host.states()[A1] == "STOPPING" and host.links() == {A1}
    done.touch()
    wait_until(lambda: set(host.files()) == {f"{A2}.conf", f"{S2}.conf"}, 10, f"the conf of {A2} and {S2} alone")


def test_what_was_begun_anew_meanwhile_is_not_forgotten(host):
    done = host.directory / "done"
    deploy(host, host.program(A1, ["--drain-until", done], settings=["stopwaitsecs=60"]))
    assert deploy(host, host.program(A2))["draining"] == [A1]
    done.touch()
    wait_until(lambda: host.states().get(A1) in ("STOPPED", None), 10, f"the end of {A1}")
    deploy(host, host.program(A1))
    wait_until(
        lambda: set(host.files()) == {f"{A1}.conf"} and host.states() == {A1: "RUNNING"},
        10,
        f"{A1} alone, RUNNING",
    )
    assert host.links() == set()
