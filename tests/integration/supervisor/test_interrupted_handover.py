"""supervisor_programs when a call or the host ends half-way: what runs then, and what the next call does."""

import signal
import time

import pytest
from support.supervisord import A1, A2, A3, S1, S2, SCHEDULER, actions, scheduler, serving
from support.wait import wait_until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_before_the_new_is_proven(host, number):
    host.apply([host.program(A1)])
    pids, files = host.pids(), host.files()
    process = host.begin([host.program(A2, ready=["sleep", "60"], ready_timeout=60)])
    wait_until(lambda: "ready" in host.events(A2), 10, f"{A2}: ready")
    process.signal(number)
    result = process.result()
    assert f"Interrupted by {number.name}" in result["msg"] and f"{A1} keeps running" in result["msg"]
    assert host.pids() == pids and host.files() == files


def test_it_goes_back_once_supervisord_is_restarted(host):
    host.apply([host.program(A1)])
    process = host.begin([host.program(A2, ready=["false"], ready_timeout=60)])
    wait_until(lambda: host.states().get(A2) == "RUNNING", 10, f"{A2} RUNNING")
    host.stop()
    time.sleep(1)
    host.start()
    result = process.result()
    assert "supervisord does not answer" in result["msg"] and f"{A2} was stopped and removed" in result["msg"]
    assert host.states() == {A1: "RUNNING"} and set(host.files()) == {f"{A1}.conf"}


def test_killed_half_way_then_converge(host):
    host.apply([host.program(A1)])
    proven = host.directory / "proven"
    new = host.program(A2, ready=["test", "-e", str(proven)])
    process = host.begin([new])
    wait_until(lambda: host.states().get(A2) == "RUNNING", 10, f"{A2} RUNNING")
    process.kill()
    assert set(host.pids()) == {A1, A2}
    proven.touch()

    result = host.apply([new])
    assert actions(result) == {A2: "handed_over"}
    assert set(host.pids()) == {A2} and set(host.files()) == {f"{A2}.conf"}
    assert host.events(A1)["term"] > host.events(A2)["ready"]


def test_killed_half_way_and_the_new_is_bad(host):
    host.apply([host.program(A1)])
    pids, files = host.pids(), host.files()
    new = host.program(A2, ready=["false"], ready_timeout=60)
    process = host.begin([new])
    wait_until(lambda: host.states().get(A2) == "RUNNING", 10, f"{A2} RUNNING")
    process.kill()
    result = host.refuse([{**new, "ready_timeout": 1}])
    assert f"{A2} was stopped and removed." in result["msg"]
    assert host.pids() == pids and host.files() == files


def test_killed_while_draining_then_converge(host):
    done = host.directory / "done"
    host.apply([host.program(A1, ["--drain-until", done])])
    process = host.begin([host.program(A2)])
    wait_until(lambda: host.states().get(A1) == "STOPPING", 10, f"{A1} STOPPING")
    process.kill()
    done.touch()
    result = host.apply([host.program(A3)])
    assert result["programs"][0]["from"] == [A1, A2]
    assert host.states() == {A3: "RUNNING"} and set(host.files()) == {f"{A3}.conf"}


def test_replace_killed_half_way_and_the_new_is_bad(host):
    host.apply([scheduler(host, S1)], **SCHEDULER)
    files = host.files()
    process = host.begin([scheduler(host, S2, ready=["false"], ready_timeout=60)], **SCHEDULER)
    wait_until(lambda: host.states().get(S2) == "RUNNING", 10, f"{S2} RUNNING")
    process.kill()
    assert host.states()[S1] == "STOPPED"
    result = host.refuse([scheduler(host, S2, ready=["false"], ready_timeout=1)], **SCHEDULER)
    assert f"{S1} was started again" in result["msg"]
    assert host.states() == {S1: "RUNNING"} and host.files() == files


# One generation runs after a reboot.


def half_way(host, old, new, **more):
    """Start the old one, then the new one; kill the module before the new one is ready."""
    host.apply([old], **more)
    process = host.begin([{**new, "ready": ["false"], "ready_timeout": 60}], **more)
    wait_until(lambda: host.states().get(new["name"]) == "RUNNING", 10, "the new one RUNNING")
    assert host.rpc.reloadConfig() == [[[], [], []]], "nothing for anybody's `supervisorctl update` to do"
    process.kill()


@pytest.mark.parametrize("then", ["deploy", "rollback"])
@pytest.mark.parametrize("strategy", ["overlap", "replace"])
def test_a_reboot_before_the_new_is_proven_starts_the_old_alone(host, strategy, then):
    old, new = host.program(A1), host.program(A2)
    half_way(host, old, new, strategy=strategy)
    host.reboot()
    assert host.states() == {A1: "RUNNING"} and host.links() == {A2}

    wanted = new if then == "deploy" else old
    result = host.apply([wanted], strategy=strategy)
    moved = "replaced" if strategy == "replace" else "handed_over"
    assert actions(result) == ({A2: moved} if then == "deploy" else {A1: "unchanged", A2: "removed"})
    assert serving(host, wanted["name"])
    assert not host.apply([wanted], strategy=strategy)["changed"]


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("strategy", ["overlap", "replace"])
def test_a_crash_anywhere_in_a_handover_and_a_reboot_leave_one(host, strategy, call):
    host.apply([host.program(A1)])
    assert host.begin([host.program(A2)], strategy=strategy, crash_before=call).died()
    host.reboot()
    proven = A2 if call == 4 or (strategy == "overlap" and call == 3) else A1
    assert host.states() == {proven: "RUNNING"}
    host.apply([host.program(A2)], strategy=strategy)
    assert serving(host, A2)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("strategy", ["overlap", "replace"])
def test_the_run_after_a_crash_anywhere_in_a_handover_goes_either_way(host, strategy, call):
    host.apply([host.program(A1)])
    assert host.begin([host.program(A2)], strategy=strategy, crash_before=call).died()
    host.apply([host.program(A1)], strategy=strategy)
    assert serving(host, A1)
    host.apply([host.program(A2)], strategy=strategy)
    assert serving(host, A2)


@pytest.mark.parametrize("strategy", ["overlap", "replace"])
def test_without_a_reboot_the_run_after_an_interrupted_one_goes_back(host, strategy):
    half_way(host, host.program(A1), host.program(A2), strategy=strategy)
    host.apply([host.program(A1)], strategy=strategy)
    assert serving(host, A1)


def test_a_rollback_that_is_not_ready_never_takes_the_proven_away(host):
    old = host.program(A1)
    half_way(host, old, host.program(A2))
    pid = host.pids()[A1]
    result = host.refuse([{**old, "ready": ["false"], "ready_timeout": 1}])
    assert result["failed_program"] == A1 and host.pids()[A1] == pid and host.links() == {A2}


def test_replace_goes_back_to_the_proven_one_of_two(host):
    half_way(host, host.program(A1), host.program(A2), strategy="replace")
    result = host.refuse([host.program(A3, ["--die-after", 0], min_uptime=1)], strategy="replace")
    assert f"{A1} was started again" in result["msg"]
    assert host.states() == {A1: "RUNNING", A2: "STOPPED"} and host.links() == {A2}


def test_a_reboot_while_the_old_drains_starts_the_new_alone(host):
    host.apply([host.program(A1, ["--drain", 60])])
    process = host.begin([host.program(A2)])
    wait_until(lambda: host.states().get(A1) == "STOPPING", 10, f"{A1} STOPPING")
    assert host.rpc.reloadConfig() == [[[], [], []]]
    process.kill()
    host.reboot()
    assert host.states() == {A2: "RUNNING"} and host.links() == {A1}
    assert actions(host.apply([host.program(A2)], check=True)) == {A2: "unchanged", A1: "removed"}
    host.apply([host.program(A2)])
    assert serving(host, A2)


def test_a_first_deploy_is_not_started_by_a_reboot_until_it_is_proven(host):
    new = host.program(A1)
    process = host.begin([{**new, "ready": ["false"], "ready_timeout": 60}])
    wait_until(lambda: host.states() == {A1: "RUNNING"}, 10, f"{A1} alone, RUNNING")
    process.kill()
    assert actions(host.apply([new], check=True)) == {A1: "started"}, "it runs, and was not proven"
    host.reboot()
    assert host.states() == {}
    assert actions(host.apply([new])) == {A1: "started"} and serving(host, A1)


def test_a_program_that_keeps_its_name_is_lasting_once_proven(host):
    name = "app-worker-socket"
    process = host.begin([host.program(name, ready=["false"], ready_timeout=60)])
    wait_until(lambda: host.states() == {name: "RUNNING"}, 10, f"{name} alone, RUNNING")
    process.kill()
    assert host.links() == {name}
    assert actions(host.apply([host.program(name, ["--drain", 0.1])])) == {name: "restarted"}
    assert serving(host, name)


def test_absent_removes_links_that_lead_nowhere(host):
    half_way(host, host.program(A1), host.program(A2))
    host.reboot()
    host.apply(state="absent")
    assert host.states() == {} and not list(host.conf_d.iterdir()) and not list(host.volatile.iterdir())


def test_links_of_others_are_left_alone(host):
    nowhere = host.conf_d / f"{A2}.conf"
    nowhere.symlink_to("/nowhere/at.all")
    host.apply([host.program(A1)])
    result = host.refuse([host.program(A2)])
    assert "it is not ours to replace" in result["msg"] and nowhere.is_symlink()
    assert actions(host.apply(state="absent")) == {A1: "removed"} and nowhere.is_symlink()


def test_a_rollback_right_after_an_interrupted_drain(host):
    """The old one is asked to come back while it still stops: it begins anew, as another generation."""
    done = host.directory / "done"
    old = host.program(A1, ["--drain-until", done])
    host.apply([old])
    process = host.begin([host.program(A2)])
    wait_until(lambda: host.states().get(A1) == "STOPPING", 10, f"{A1} STOPPING")
    process.kill()
    process = host.begin([old])
    wait_until(lambda: set(host.states()) - {A1, A2}, 30, "another generation")
    done.touch()
    [(again, action)] = actions(host.succeeded(process)).items()
    assert action == "handed_over" and again != A1
    assert serving(host, again)
