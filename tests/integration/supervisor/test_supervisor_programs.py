"""supervisor_programs beside a real supervisord."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import drain, look
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir
from support.supervisord import A1, A2, A3, B1, B2, S1, S2, S3, SCHEDULER, TOP, actions, scheduler
from support.wait import wait_until


def test_first_start_then_nothing_to_do(host):
    programs = [host.program(A1), host.program(B1)]
    first = host.apply(programs)
    pids = host.pids()
    assert first["changed"] and actions(first) == {A1: "started", B1: "started"}
    assert {program["name"]: program["pid"] for program in first["programs"]} == pids
    assert set(host.files()) == {f"{A1}.conf", f"{B1}.conf"}

    second = host.apply(programs)
    assert not second["changed"] and second["diff"] == []
    assert actions(second) == {A1: "unchanged", B1: "unchanged"}
    assert host.pids() == pids


def test_overlap_keeps_the_old_until_the_new_is_ready(host):
    host.apply([host.program(A1, ["--drain", 1]), host.program(B1)])
    b_pid = host.pids()[B1]
    new = host.program(A2, ["--ready-after", 1])
    result = host.apply([new, host.program(B1)])

    [a, b] = result["programs"]
    assert (a["action"], a["from"], b["action"]) == ("handed_over", [A1], "unchanged")
    assert a["seconds"]["ready"] >= 0.9 and a["seconds"]["drain"] >= 1 and a["gap"] is None
    assert host.pids() == {A2: a["pid"], B1: b_pid}
    assert host.events(A1)["term"] > host.events(A2)["ready"]
    assert "end" in host.events(A1), "it was drained, not killed"
    assert set(host.files()) == {f"{A2}.conf", f"{B1}.conf"}
    assert host.rpc.reloadConfig() == [[[], [], []]]


def test_overlap_proves_all_before_it_stops_any(host):
    host.apply([host.program(A1), host.program(B1)])
    host.apply([host.program(A2), host.program(B2, ["--ready-after", 1])])
    assert min(host.events(name)["term"] for name in (A1, B1)) > host.events(B2)["ready"]


def test_rolling_has_one_program_more_at_most(host):
    host.apply([host.program(A1), host.program(B1)])
    result = host.apply([host.program(A2), host.program(B2)], strategy="rolling")
    assert actions(result) == {A2: "handed_over", B2: "handed_over"}
    a1, a2, b1, b2 = (host.events(name) for name in (A1, A2, B1, B2))
    assert a2["start"] < a1["term"] < a1["end"] < b2["start"] < b1["term"]


def test_rolling_goes_all_the_way_back(host):
    host.apply([host.program(A1), host.program(B1)])
    b_pid, files = host.pids()[B1], host.files()
    result = host.refuse([host.program(A2), host.program(B2, ["--die-after", 0], min_uptime=1)], strategy="rolling")
    assert f"{A1} was started again" in result["msg"] and f"{A2} was stopped and removed" in result["msg"]
    assert set(host.pids()) == {A1, B1} and host.pids()[B1] == b_pid
    assert host.files() == files


def test_replace_never_runs_two(host):
    host.apply([scheduler(host, S1, "--drain", 0.5)], **SCHEDULER)
    new = scheduler(host, S2, "--ready-after", 0.5, min_uptime=2)
    result = host.apply([new], **SCHEDULER)
    [step] = result["programs"]
    assert (step["action"], step["from"]) == ("replaced", [S1])
    assert host.events(S2)["start"] > host.events(S1)["end"]
    gap = host.events(S2)["ready"] - host.events(S1)["term"]
    assert gap >= 1.0 and abs(step["gap"] - gap) < 1.5, "from TERM to ready, without the two seconds of staying up"
    assert set(host.pids()) == {S2} and set(host.files()) == {f"{S2}.conf"}


def test_replace_starts_the_old_again(host):
    host.apply([scheduler(host, S1)], **SCHEDULER)
    files = host.files()
    result = host.refuse([scheduler(host, S2, "--die-after", 0.3, min_uptime=3)], **SCHEDULER)
    assert result["failed_program"] == S2
    assert f"{S2} was stopped and removed." in result["msg"] and f"{S1} was started again (pid" in result["msg"]
    assert set(host.pids()) == {S1} and host.files() == files
    events = host.directory / f"{S1}.events"
    wait_until(lambda: events.read_text().count("start") == 2, 10, "a second start")


W1, W2 = (f"app-web-{digit * 8}" for digit in "12")


# Consumers and producers in one call.

ALL = {"prefix": ["app-worker-", "app-web-", "app-scheduler-"], "producers": ["app-web", "app-scheduler"]}


@pytest.fixture
def whole(host):
    """The first generations of a worker that can be held, a scheduler and a web program; what makes the next ones."""
    (host.directory / "run").mkdir()

    def programs(worker, schedule, web, heeds=True, **more):
        heed = ["--heeds", f"{host.directory}/run/{worker}"] if heeds else []
        options = {key: more.pop(key, []) for key in ("worker_does", "web_does")}
        return [
            host.program(worker, [*heed, *options["worker_does"]], **more),
            host.program(web, options["web_does"], prefix="app-web-", min_uptime=1),
            host.program(schedule, prefix="app-scheduler-", strategy="replace"),
        ]

    host.apply(programs(A1, S1, W1), **ALL)
    return programs


def held(host):
    return [path.name for path in (host.directory / "run").glob("*.hold")]


def test_producers_start_when_the_old_consumers_take_nothing_more_and_all_are_observed_at_once(host, whole):
    begun = time.time()
    result = host.apply(whole(A2, S2, W2, worker_does=["--ready-after", 0.5], min_uptime=2), **ALL)
    assert actions(result) == {A2: "handed_over", W2: "handed_over", S2: "replaced"}
    old, new, web, scheduler = (host.events(name) for name in (A1, A2, W2, S2))
    assert new["ready"] < old["held"] < min(web["start"], scheduler["start"]) and host.events(S1)["term"] > old["held"]
    assert "let-go" not in old and old["term"] > new["ready"] + 2 and host.events(W1)["term"] > web["ready"] + 1
    assert old["term"] - begun < 2 + 3, "the observations were one"
    assert set(host.pids()) == {A2, S2, W2} and held(host) == []


@pytest.mark.parametrize(
    ("fails", "more"),
    [(W2, {"web_does": ["--die-after", 0.3]}), (A2, {"worker_does": ["--ends-after", 1.0], "min_uptime": 3})],
)
def test_where_one_of_them_fails_the_old_consumers_go_on_and_all_is_as_before(host, whole, fails, more):
    pids, files = host.pids(), host.files()
    result = host.refuse(whole(A2, S2, W2, **more), **ALL)
    assert result["failed_program"] == fails and f"{A1} takes tasks again" in result["msg"]
    assert {name: pid for name, pid in host.pids().items() if name != S1} == {A1: pids[A1], W1: pids[W1]}
    assert host.files() == files and held(host) == []
    wait_until(lambda: "let-go" in host.events(A1), 5, "the old consumer goes on")
    wait_until(lambda: set(host.pids()) == {A1, S1, W1}, 5, "the old scheduler")


def test_an_old_consumer_that_can_not_be_held_is_told_to_stop_before_the_producers_start(host, whole):
    """From then on nothing leads back to it: whoever called restores the deployment before."""
    host.apply(whole(A2, S1, W1, heeds=False), **ALL)
    result = host.refuse(whole(A3, S2, W2, web_does=["--die-after", 0.3], min_uptime=1), **ALL)
    assert result["failed_program"] == W2
    told = host.events(A2)["term"]
    assert host.events(A3)["ready"] + 1 < told < min(host.events(W2)["start"], host.events(S2)["start"])
    wait_until(lambda: set(host.pids()) == {A3, S1, W1}, 10, "the old producers, the new consumer")
    assert held(host) == []


def test_what_was_told_to_stop_can_be_waited_for_later_and_one_that_was_killed_is_told_of(host):
    done = host.directory / "done"
    first = [host.program(A1, ["--drain-until", done]), host.program(B1, ["--drain", 30], settings=["stopwaitsecs=4"])]
    host.apply([*first, host.program("app-worker-c-11111111", ["--drain", 30])])
    result = host.apply([host.program(A2), host.program(B2), host.program("app-worker-c-22222222")], drain_wait=0)
    assert result["told"] == result["draining"] == [A1, B1, "app-worker-c-11111111"]
    done.touch()
    conf_dir = ConfDir(host.conf_d, ["app-worker-"], host.volatile)
    begun = time.monotonic()
    draining, warnings = drain.await_end(look.connect(host.conf, 0), conf_dir, result["told"], 8)
    assert draining == ["app-worker-c-11111111"] and 7 < time.monotonic() - begun < 22
    assert [warning.split()[0] for warning in warnings] == [B1] and "supervisord killed it" in warnings[0]
    assert "end" in host.events(A1) and host.links() == {"app-worker-c-11111111"}
    assert A1 not in host.states() and B1 not in host.states()


def test_what_a_call_that_was_killed_has_left_held_goes_on_with_the_next(host, whole):
    assert host.begin(whole(A2, S2, W2), crash_before=3, **ALL).died()
    assert held(host) == [f"{A1}.hold"]
    host.apply(whole(A1, S1, W1), **ALL)
    assert held(host) == [] and set(host.pids()) == {A1, S1, W1}
    wait_until(lambda: "let-go" in host.events(A1), 5, "the old consumer goes on")


def test_a_consumer_that_is_removed_is_held_as_well(host, whole):
    programs = whole(A1, S1, W1)
    extra = host.program(B1, ["--heeds", f"{host.directory}/run/{B1}"])
    host.apply([*programs, extra], **ALL)
    host.apply(whole(A1, S2, W2), **ALL)
    assert host.events(B1)["held"] < host.events(W2)["start"] and B1 not in host.pids()


def test_what_may_not_run_beside_the_old_one_replaces_it_and_what_may_does_not(host):
    leased = {"beside": "leased", "settings": ["environment=MODE=leased"]}
    host.apply([scheduler(host, S1, "--drain", 0.3)], prefix="app-scheduler")
    [replaced] = host.apply([scheduler(host, S2, **leased)], prefix="app-scheduler")["programs"]
    assert replaced["action"] == "replaced"
    assert host.events(S2)["start"] > host.events(S1)["end"]
    [beside] = host.apply([scheduler(host, S3, **leased)], prefix="app-scheduler")["programs"]
    assert beside["action"] == "handed_over"
    assert host.events(S2)["term"] > host.events(S3)["ready"]


def test_only_what_runs_already_is_handed_over_where_that_is_asked_for(host):
    first = host.apply([scheduler(host, S1)], prefix="app-scheduler", successors_only=True)
    assert (first["changed"], first["programs"], host.pids()) == (False, [], {})
    host.apply([scheduler(host, S1)], prefix="app-scheduler")
    host.apply([scheduler(host, S2)], prefix="app-scheduler", successors_only=True)
    assert set(host.pids()) == {S2}
    assert not host.apply([scheduler(host, S2)], prefix="app-scheduler", successors_only=True)["changed"]


def test_only_what_is_to_leave_is_removed_where_that_is_asked_for(host):
    host.apply([scheduler(host, S1)], prefix="app-scheduler")
    kept = host.apply([scheduler(host, S2)], prefix="app-scheduler", leavers_only=True)
    assert (kept["changed"], set(host.pids())) == (False, {S1})
    assert host.apply([], prefix="app-scheduler", leavers_only=True)["changed"]
    assert host.pids() == {}


@pytest.mark.parametrize(
    ("worker", "more", "seen"),
    [
        (["--die-after", 0], {"min_uptime": 3}, "did not come up"),
        (["--die-after", 2], {"min_uptime": 4}, "did not come up"),
        (["--ready-after", 60], {"ready_timeout": 2}, "not ready within 2 s"),
        ([], {"ready": ["sleep", "60"], "ready_timeout": 2}, "not ready within 2 s"),
        (
            [],
            {"ready": ["sh", "-c", 'echo \'{"ready": false, "reason": "no canary"}\''], "ready_timeout": 2},
            "not ready within 2 s: its ready command says: no canary",
        ),
    ],
    ids=[
        "dies at once",
        "dies while staying up",
        "never ready",
        "ready hangs",
        "ready says no",
    ],
)
def test_a_bad_generation_never_replaces_a_good_one(host, worker, more, seen):
    host.apply([host.program(A1)])
    pids, files = host.pids(), host.files()
    # What dies is seen at once, long before the time that it has to become ready.
    begun = time.monotonic()
    result = host.refuse([host.program(A2, worker, **{"ready_timeout": 60, **more})])
    assert time.monotonic() - begun < 30
    assert seen in result["msg"] and result["failed_program"] == A2 and result["release_fault"]
    assert f"{A2} was stopped and removed." in result["msg"]
    assert f"{A1} keeps running (pid {pids[A1]})." in result["msg"]
    if "--die-after" in worker:
        assert "ModuleNotFoundError: No module named 'petct_tasks'" in result["log_tail"]
        assert "\n".join(result["log_tail"]) in result["msg"]
    assert f"tail -n 100 {host.directory}/{A2}.log" in result["msg"]
    assert host.pids() == pids and host.files() == files
    assert host.rpc.reloadConfig() == [[[], [], []]]


def test_a_broker_that_refuses_the_login_is_told_from_a_crash(host):
    words = host.directory / "words"
    words.write_text("amqp.exceptions.AccessRefused: (0, 0): (403) ACCESS_REFUSED - Login was refused using PLAIN.\n")
    new = host.program(A2, ["--die-after", 0], min_uptime=3)
    new["conf"] = new["conf"].replace(
        f"command={sys.executable}", f"command=/bin/sh -c 'cat {words}; sleep 0.2; exit 1' --"
    )
    result = host.refuse([new], app="app")
    assert "The broker refuses the application (Login was refused)" in result["msg"]
    assert not result["release_fault"]


def test_a_broker_that_is_away_is_told_from_a_release_that_is_not_ready(host):
    away = "broker amqp://app:**@127.0.0.1:5672/app can't be reached: [Errno 111] Connection refused"
    says = [
        "/bin/sh",
        "-c",
        f"echo '{json.dumps({'ready': False, 'reason': away})}'; exit 1".replace("can't", "can'\\''t"),
    ]
    result = host.refuse([host.program(A2, ready=says, ready_timeout=2)], app="app")
    assert f"its ready command says: {away}" in result["msg"] and "Start the broker" in result["msg"]
    assert result["failed_program"] == A2 and not result["release_fault"]


def test_a_queue_that_exists_with_other_arguments_is_told_from_a_crash(host):
    refusal = (
        "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'build:default' in vhost 'shop': "
        "received none but current is the value '10' of type 'signedint'"
    )
    words = host.directory / "words"
    words.write_text(f"Unrecoverable error: PreconditionFailed(406, \"{refusal}\", (50, 10), 'Queue.declare')\n")
    host.apply([host.program(A1)])
    new = host.program(A2, ["--die-after", 0], min_uptime=3)
    new["conf"] = new["conf"].replace(
        f"command={sys.executable}", f"command=/bin/sh -c 'cat {words}; sleep 0.2; exit 1' --"
    )
    result = host.refuse([new], app="app")
    assert "queue build:default (vhost shop) exists with x-max-priority 10" in result["msg"]
    assert "the release declares it with no x-max-priority" in result["msg"]
    assert f"supervisorctl stop {A1}" in result["msg"]
    assert "app celery amqp queue.delete build:default false true" in result["msg"]
    assert result["failed_program"] == A2 and not result["release_fault"]


def test_a_port_that_the_old_generation_has_is_told_from_a_crash(host):
    words = host.directory / "words"
    words.write_text("OSError: [Errno 98] Address already in use\n")
    host.apply([host.program(A1)])
    new = host.program(A2, ["--die-after", 0], min_uptime=3)
    new["conf"] = new["conf"].replace(
        f"command={sys.executable}", f"command=/bin/sh -c 'cat {words}; sleep 0.2; exit 1' --"
    )
    result = host.refuse([new], app="app")
    assert f"runs it beside the old one, {A1}, which may have that port" in result["msg"]
    assert "To let that one end first, write handover: replace" in result["msg"] and not result["release_fault"]


def test_a_command_that_does_not_exist(host):
    program = host.program(A1)
    program["conf"] = program["conf"].replace(sys.executable, "/nowhere/celery-ops-guard")
    result = host.refuse([program])
    assert "/nowhere/celery-ops-guard" in result["msg"] and host.files() == {} and host.states() == {}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('environment=A="50%"', "badly formatted"),
        ('environment=A="x ; y"', "No closing quotation"),
        ("user=nobody-at-all", "Invalid user name nobody-at-all"),
        ("stderr_logfile=/nowhere/at/all.log", "/nowhere/at"),
        ("numprocs=2\nprocess_name=%(program_name)s_%(process_num)s", "one process of that name"),
        ("[program:other]\ncommand=/bin/true", "and no other"),
    ],
)
def test_a_bad_conf_is_refused_and_nothing_changes(host, setting, words):
    host.apply([host.program(A1)])
    pids, files = host.pids(), host.files()
    result = host.refuse([host.program(A2, settings=[setting]), host.program(B1)])
    assert words in result["msg"] and A2 in result["msg"]
    assert host.pids() == pids and host.files() == files


def test_a_foreign_file_that_is_broken_is_not_blamed_on_us(host):
    (host.conf_d / "shop.conf").write_text("[program:shop]\ncommand=/bin/cat %nonsense\n")
    result = host.refuse([host.program(A1)])
    assert "not by a file of ours" in result["msg"] and "shop" in result["msg"]
    assert set(host.files()) == {"shop.conf"}


def test_a_supervisord_conf_with_all_that_supervisor_expands_is_understood(host, monkeypatch):
    monkeypatch.setenv("USER_OF_IT", "it")
    host.stop()
    other = host.directory / platform.node()
    other.mkdir()
    (other / "theirs.conf").write_text("[program:theirs]\ncommand=sleep 60\n")
    login = "username=%(ENV_USER_OF_IT)s\npassword=a%%b\n"
    text = host.text().replace("chmod=0700\n", f"chmod=0700\n{login}").replace("[include]", f"{login}[include]")
    text = text.replace(str(host.socket), "%(here)s/supervisor.sock")
    host.start(f"{text.rstrip()} %(here)s/%(host_node_name)s/*.conf\n", ("it", "a%b"))
    assert actions(host.apply([host.program(A1)])) == {A1: "started"}
    assert set(host.states()) == {A1, "theirs"}


def test_foreign_programs_with_look_alike_names_are_not_touched(host):
    """An app called `app-worker` has the prefix `app-worker-worker-`, and somebody wrote a conf by hand."""
    other = "app-worker-worker-a-99999999"
    host.apply([host.program(other, prefix="app-worker-worker-")], prefix="app-worker-worker-")
    by_hand = host.program("app-worker-hand-11111111")["conf"].split("\n", 1)[1]
    (host.conf_d / "app-worker-hand-11111111.conf").write_text(by_hand)
    host.rpc.reloadConfig()
    host.rpc.addProcessGroup("app-worker-hand-11111111")
    pids = wait_until(lambda: len(host.pids()) == 2 and host.pids(), 10, "two programs")

    host.apply([host.program(A1)])
    host.apply([host.program(A2)])
    result = host.apply(state="absent")
    assert actions(result) == {A2: "removed"}
    assert host.pids() == pids and len(host.files()) == 2

    result = host.refuse([host.program("app-worker-hand-11111111")])
    assert "it is not ours to replace" in result["msg"] and host.pids() == pids


def test_what_is_ours_and_no_longer_intended_goes(host):
    host.apply([host.program(A1), host.program(B1), host.program(A3.replace("-a-", "-c-"))])
    a_pid = host.pids()[A1]
    (host.conf_d / f"{B1}.conf").unlink()  # someone deleted the file of a program that runs on
    result = host.apply([host.program(A1), host.program(B2)])
    assert actions(result) == {A1: "unchanged", B2: "handed_over", "app-worker-c-33333333": "removed"}
    assert set(host.pids()) == {A1, B2} and host.pids()[A1] == a_pid
    assert set(host.files()) == {f"{A1}.conf", f"{B2}.conf"}


def test_a_server_whose_own_processes_keep_dying_is_refused(host):
    host.apply([host.program(A1)])
    pids = host.pids()
    result = host.refuse([host.program(A2, ["--child-lasts", 0.1], min_uptime=2, lasting_children=True)])
    assert "the processes it starts keep ending" in result["msg"]
    assert host.pids() == pids
    host.apply([host.program(A2, ["--child-lasts", 30], min_uptime=2, lasting_children=True)])
    host.apply([host.program(A1, min_uptime=1, lasting_children=True)])


def test_a_server_whose_processes_end_after_loading_for_longer_than_the_minimum_uptime_is_refused(host):
    """As on a busy host, where the code that ends them takes so long to load."""
    host.apply([host.program(A1)])
    result = host.refuse([host.program(A2, ["--child-loads", 2.5], min_uptime=1, lasting_children=True)])
    assert "the processes it starts keep ending" in result["msg"]


def test_a_server_that_has_work_all_the_time_is_waited_for_and_taken(host):
    host.apply([host.program(A1, ["--child-loads", 60], min_uptime=1, lasting_children=True)])


def test_a_server_whose_processes_are_merely_young_on_a_busy_host_is_waited_for(host):
    late = ["--child-lasts", 30, "--ready-after", 1.5]
    host.apply([host.program(A1, late, min_uptime=2, lasting_children=True)])


def test_the_log_that_is_shown_is_of_this_attempt(host):
    for _ in range(2):
        result = host.refuse([host.program(A1, ["--die-after", 0.1], settings=["autorestart=false"])])
        assert result["log_tail"].count("Starting up.") == 1


def test_a_lost_conf_file_is_written_again_without_a_restart(host):
    host.apply([host.program(A1)])
    pids = host.pids()
    (host.conf_d / f"{A1}.conf").unlink()
    result = host.apply([host.program(A1)])
    assert result["changed"] and actions(result) == {A1: "rewritten"}
    assert host.pids() == pids and set(host.files()) == {f"{A1}.conf"}


def test_absent_removes_all_and_drains(host):
    done = host.directory / "done"
    host.apply([host.program(name, ["--drain-until", done]) for name in (A1, B1)])
    process = host.begin(state="absent")
    wait_until(lambda: all("term" in host.events(name) for name in (A1, B1)), 30, "both at their last tasks")
    done.touch()
    assert actions(host.succeeded(process)) == {A1: "removed", B1: "removed"}
    assert host.states() == {} and host.files() == {}
    events = [host.events(name) for name in (A1, B1)]
    assert max(event["term"] for event in events) < min(event["end"] for event in events), "all drain at once"
    assert not host.apply(state="absent")["changed"]


def test_check_mode_says_it_all_and_does_nothing(host):
    old, new = [host.program(A1), host.program(B1)], [host.program(A2)]
    foretold = host.apply(old, check=True)
    assert actions(foretold) == {A1: "started", B1: "started"} and host.files() == {} and host.states() == {}
    host.apply(old)
    pids, files = host.pids(), host.files()

    foretold = host.apply(new, check=True)
    assert host.pids() == pids and host.files() == files
    done = host.apply(new)
    assert foretold["changed"] and actions(foretold) == actions(done) == {A2: "handed_over", B1: "removed"}
    assert foretold["diff"] == done["diff"]
    assert [(entry["before"], entry["after"]) for entry in done["diff"]] == [
        (old[0]["conf"], ""),
        ("", new[0]["conf"]),
        (old[1]["conf"], ""),
    ]
    assert not host.apply(new, check=True)["changed"]


def test_check_mode_before_there_is_a_supervisord(host):
    host.stop()
    assert actions(host.apply([host.program(A1)], check=True)) == {A1: "started"}
    host.conf.unlink()
    assert actions(host.apply([host.program(A1)], check=True, conf_dir="/nowhere")) == {A1: "started"}


def test_no_supervisord(host):
    host.stop()
    result = host.refuse([host.program(A1)])
    assert f"supervisord does not answer at unix://{host.socket}" in result["msg"]
    assert "systemctl start supervisor" in result["msg"] and host.files() == {}
    (host.conf_d / f"{A1}.conf").write_text(host.program(A1)["conf"])
    assert actions(host.apply(state="absent")) == {A1: "removed"} and host.files() == {}


@pytest.mark.parametrize("how", ["stopped", "fatal", "exited", "not loaded"])
def test_what_should_run_and_does_not_is_started(host, how):
    if how == "fatal":
        once = host.directory / "once"
        once.write_text("exit 1")
        program = host.program(A1, settings=["startretries=0", "startsecs=1"])
        program["conf"] = program["conf"].replace("command=", f"command=sh -c '. {once}; exec \"$@\"' sh ")
        host.refuse([program])
        (host.conf_d / f"{A1}.conf").write_text(program["conf"])
        host.rpc.reloadConfig()
        host.rpc.addProcessGroup(A1)
        wait_until(lambda: host.states()[A1] == "FATAL", 10, f"{A1} FATAL")
        once.write_text("true")
    else:
        program = host.program(A1, settings=["autorestart=false"])
        host.apply([program])
        if how == "exited":
            os.kill(host.pids()[A1], signal.SIGTERM)
            wait_until(lambda: host.states()[A1] == "EXITED", 10, f"{A1} EXITED")
        else:
            host.rpc.stopProcess(A1)
        if how == "not loaded":
            host.rpc.removeProcessGroup(A1)
    result = host.apply([program])
    assert result["changed"] and actions(result) == {A1: "started"}
    wait_until(lambda: host.states() == {A1: "RUNNING"}, 10, f"{A1} alone, RUNNING")


def test_changed_settings_under_the_same_name(host):
    name = "app-worker-socket"
    host.apply([host.program(name), host.program(A1)])
    pids = host.pids()
    comment = host.program(name)
    comment["conf"] = comment["conf"].replace("[program", "# says nothing\n[program")
    assert actions(host.apply([comment, host.program(A1)], check=True)) == {
        name: "rewritten",
        A1: "unchanged",
    }
    result = host.apply([comment, host.program(A1)])
    assert actions(result) == {name: "rewritten", A1: "unchanged"}
    assert host.pids() == pids and host.files()[f"{name}.conf"] == comment["conf"]

    changed = host.program(name, ["--drain", 0.1])
    assert actions(host.apply([changed, host.program(A1)], check=True))[name] == "restarted"
    result = host.apply([changed, host.program(A1)])
    assert actions(result) == {name: "restarted", A1: "unchanged"} and result["programs"][0]["gap"] > 0
    assert host.pids()[A1] == pids[A1] and host.pids()[name] != pids[name]

    pids, files = host.pids(), host.files()
    result = host.refuse([host.program(name, ["--die-after", 0], min_uptime=1), host.program(A1)])
    assert f"{name} was started again" in result["msg"]
    assert host.pids()[A1] == pids[A1] and host.states()[name] == "RUNNING" and host.files() == files


def test_a_conf_dir_that_is_not_included(host):
    elsewhere = host.directory / "elsewhere"
    elsewhere.mkdir()
    result = host.refuse([host.program(A1)], conf_dir=str(elsewhere))
    assert f"does not include {elsewhere}/{A1}.conf" in result["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other-a-11111111"}, "does not begin with a prefix of program_prefixes"),
        ({"name": "app-worker-a/../x"}, "may hold letters"),
        ({"program": "app-worker-b"}, "must be its program"),
        (
            {"conf": f"[program:{A1}]\ncommand=/bin/true\n"},
            "lacks the line '# owner: celery-ops app-worker-'",
        ),
        ({"conf": "# owner: celery-ops app-worker-\nnonsense"}, "is not a valid configuration file"),
    ],
)
def test_a_manifest_that_makes_no_sense(host, change, words):
    result = host.refuse([{**host.program(A1), **change}])
    assert words in result["msg"] and host.files() == {}


def test_through_ansible(host, tmp_path):
    arguments = {key: value for key, value in host.arguments([host.program(A1)]).items() if key[0] != "_"}
    environment = {
        # Without the kit's configuration, and so without the action plugin.
        **{name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"},
        "ANSIBLE_LIBRARY": str(TOP / "plugins/modules"),
        "ANSIBLE_COLLECTIONS_PATH": str(TOP / "collections"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
    }
    ansible = Path(sys.executable).with_name("ansible")
    done = subprocess.run(
        [
            ansible,
            "localhost",
            "-c",
            "local",
            "-m",
            "supervisor_programs",
            "--diff",
            "-a",
            json.dumps(arguments),
        ],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CHANGED" in done.stdout and f"+[program:{A1}]" in done.stdout
    assert host.states() == {A1: "RUNNING"}


def test_a_program_that_ends_by_itself_while_it_is_retired(host):
    """supervisord starts it again between being asked to stop it and to forget it."""
    host.apply([host.program(A1, ["--die-after", 0.3], ready=[])])
    for _ in range(3):
        host.apply([host.program(A1, ["--die-after", 0.05], ready=[])])
        host.apply([host.program(A2)])
        host.apply([host.program(A1, ["--die-after", 0.05], ready=[])])
    host.apply(state="absent")
    assert host.states() == {} and host.files() == {}


# What a generation leaves behind.


def test_the_log_has_a_stable_name_that_leads_to_the_generation_that_serves(host):
    link = host.directory / "app-worker-a.log"
    host.apply([host.program(A1)])
    assert link.is_symlink() and str(link.readlink()) == f"{A1}.log"
    host.refuse([host.program(A2, ["--die-after", 0], min_uptime=1)])
    assert str(link.readlink()) == f"{A1}.log"
    host.apply([host.program(A2)])
    assert str(link.readlink()) == f"{A2}.log" and "Starting up." in link.read_text()
    link.unlink()
    host.apply([host.program(A2), host.program(B1)])
    assert str(link.readlink()) == f"{A2}.log"


def test_logs_and_locks_of_generations_long_gone_are_deleted(host):
    (host.directory / "run").mkdir()
    for name in (A1, A2, A3):
        host.apply([host.program(name), host.program(B1)], keep_logs=1)
        (host.directory / f"{name}.log.1").write_text("older\n")
        for kind in ("pid.lock", "heartbeat"):
            (host.directory / "run" / f"{name}.{kind}").touch()
    result = host.apply([host.program(A1), host.program(B1)], keep_logs=1)
    assert result["pruned"] == [f"{A2}.log", f"{A2}.log.1", f"{A3}.heartbeat", f"{A3}.pid.lock"]
    logs = {path.name for path in host.directory.glob("app-*.log*") if not path.is_symlink()}
    assert logs == {f"{A1}.log", f"{A3}.log", f"{A3}.log.1", f"{B1}.log"}
