"""What a status says of what was seen on a host; tests/infra runs the module on one."""

import time

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import State
from ansible_collections.celery_ops.kit.plugins.module_utils.status import look
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import (
    Status,
    UnlistedWorker,
    ask_for_queues,
    unlisted_workers,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import UNHEALTHY, problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import text

WORKER = "demo-worker-default-1a2b3c4d"


WORK = {"run": "r1", "who": "anna@control", "what": "deploy", "phase": "workers", "since": "noon", "pid": 9}


def program(**more):
    well = {"state": "RUNNING", "pid": 7, "uptime": 90061, "release": "r1", "health": "ready", "why": "", "tasks": ""}
    return well | more


def found(*, programs=None, **more):
    programs = {WORKER: program()} if programs is None else programs
    queues = {"demo": {"messages": 0, "consumers": 1}, "demo.dead": {"messages": 0, "consumers": 0}}
    return Status("demo", **{"host": "h", "release": "r1", "programs": programs, "queues": queues, **more})


def wrong(seen, *, programs=True):
    return problems(seen, has_programs=programs)


def test_nothing_is_wrong_with_a_healthy_system():
    assert wrong(found()) == []
    assert text(found(), [], has_programs=True, has_queues=True) == [
        "demo on h: release r1, since 1970-01-01 " + time.strftime("%H:%M:%S", time.localtime(0)),
        "PROGRAM                       STATE    PID  UP          RELEASE  HEALTH  QUEUES",
        f"{WORKER}  RUNNING  7    1d 1:01:01  r1       ready",
        "orphans: none",
        "queues: demo 0 (1 consumers), demo.dead 0",
        "lock: free",
        "last: -",
        "OK",
    ]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (found(release="", programs={}), "was not deployed here yet. Deploy: ansible-playbook playbooks/site.yml"),
        (found(refused=["supervisord does not answer"]), "supervisord does not answer"),
        *[
            (found(programs={WORKER: program(state=state, pid=0)}), says)
            for state, says in {
                "STOPPED": f"was stopped manually. Start it: supervisorctl start {WORKER}",
                "FATAL": f"restart it: supervisorctl restart {WORKER}",
                "BACKOFF": f"Look: tail -n 30 /var/log/demo/{WORKER}.log",
            }.items()
        ],
        *[
            (found(programs={WORKER: program(health=state, why="for a reason")}), f"is {state}: for a reason")
            for state in sorted(UNHEALTHY)
        ],
        (found(programs={WORKER: program(release="r0")}), "runs release r0, and the current one is r1"),
        (
            found(release="", programs={WORKER: program(release="r0"), f"{WORKER}2": program(release="r0")}),
            "Programs of release r0 run here, and no deploy of demo was completed. Deploy: ansible-playbook playbooks/",
        ),
        (found(watched=False), "The watchdog is not running or not responding"),
        (found(orphans=[{"pid": 9, "what": "beat started by hand", "seconds": 3}]), "Look: ps -fp 9"),
        (found(queues={"demo.dead": {"messages": 3, "consumers": 0}}), "3 dead-lettered tasks"),
        (found(queues={"demo": {"messages": 3, "consumers": 0}}), "Nothing consumes from demo, where 3 tasks wait"),
        (found(lock={"renewed": time.time() - 3600}), "playbooks/unlock.yml"),
        (found(work=WORK), "The work of an interrupted run goes on: deploy of anna@control, phase workers, since noon"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_type(seen, says):
    [sentence] = wrong(seen)
    assert says in sentence
    assert f"- {sentence}" in text(seen, [sentence], has_programs=True, has_queues=True)


def test_what_is_on_its_way_is_not_wrong():
    draining = {WORKER: program(release="r0", state="STOPPING", health="draining")}
    assert wrong(found(programs=draining)) == []
    deploying = {"who": "me", "what": "deploy", "at": "now", "renewed": time.time()}
    assert wrong(found(programs={WORKER: program(release="r0")}, lock=deploying)) == []
    seen = found(lock={**deploying, "id": "r1"}, work=WORK)
    assert wrong(seen) == []
    lines = text(seen, [], has_programs=True, has_queues=True)
    assert "work: deploy of anna@control, phase workers, since noon" in lines


def test_unsafe_settings_are_shown_with_the_line_to_write_and_are_no_problem():
    write = "app.conf.task_acks_late = True"
    seen = found(unsafe=[{"setting": "task_acks_late", "value": False, "write": write}])
    assert wrong(seen) == []
    assert f"unsafe setting: task_acks_late is False; write: {write}" in text(
        seen, [], has_programs=True, has_queues=True
    )


def test_a_host_that_is_only_the_broker():
    seen = found(release="", programs={})
    assert wrong(seen, programs=False) == []
    assert text(seen, [], has_programs=False, has_queues=True) == [
        "queues: demo 0 (1 consumers), demo.dead 0",
        "OK",
    ]


DRAFT = {"id": "x", "action": "deploy", "who": "anna@control", "release": "r2", "phase": "workers", "begun": ["web"]}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (found(draft=DRAFT), ["anna@control to release r2 was interrupted in phase workers", "playbooks/rollback.yml"]),
        (found(draft={**DRAFT, "failed": "web"}), ["failed and was left as it is", "playbooks/deploy.yml"]),
        (found(draft={**DRAFT, "begun": []}), []),
        (found(draft=DRAFT, lock={"id": "r1", "renewed": float("inf")}), []),  # however late this runs
    ],
)
def test_a_deploy_that_stopped_half_way_says_how_to_go_on(seen, says):
    assert len(wrong(seen)) == min(1, len(says))
    assert all(words in wrong(seen)[0] for words in says)


def test_the_last_deploys_are_shown_with_what_they_changed():
    entry = {"action": "deploy", "from": "r1", "to": "r1", "outcome": "good", "who": "anna", "at": "noon"}
    failed = {**entry, "to": "r2", "outcome": "failed: web on a; taken back", "changed": ""}
    lines = text(found(deploys=[failed, {**entry, "changed": ["environment"]}]), [], has_programs=True, has_queues=True)
    assert "last: deploy r1 -> r2: failed: web on a; taken back, anna, noon" in lines
    assert "earlier: deploy r1 -> r1 (environment): good, anna, noon" in lines


@pytest.mark.parametrize(
    ("said", "lines", "wrong_words"),
    [
        (
            '{"asked": true, "queues": {"demo": {"messages": 3, "consumers": 0}, "demo.dead": null}, "reason": ""}',
            ["queues: demo 3", "it has no queue demo.dead, so that tasks no worker could do are lost"],
            "Nothing consumes from demo, where 3 tasks wait",
        ),
        (
            '{"asked": true, "queues": {"demo.dead": {"messages": 2, "consumers": 0}}, "reason": ""}',
            [
                "queues: demo.dead 2",
                "broker: celery_app_broker_url is no host of the kit's: its alarms, and other queues",
            ],
            "2 dead-lettered tasks",
        ),
        (
            '{"asked": false, "queues": {}, "reason": "broker amqps://b refused the credentials"}',
            ["can't be seen here"],
            "The broker can't be asked for its queues: broker amqps://b refused the credentials",
        ),
        ("Traceback", ["can't be seen here"], "The broker can't be asked for its queues"),
    ],
    ids=["waiting tasks", "dead-lettered tasks", "refused", "no answer"],
)
def test_a_broker_of_somebody_else_is_asked_and_what_it_can_not_tell_is_said(said, lines, wrong_words, tmp_path):
    asked = tmp_path / "asked"
    script = tmp_path / "ask"
    script.write_text(f"#!/bin/sh\necho \"$@\" >{asked}\necho '{said}'\n")
    script.chmod(0o755)
    seen = found(queues={}, consumed={"demo", "build:default"})
    ask_for_queues(seen, [str(script)])
    shown = "\n".join(text(seen, [], has_programs=True, has_queues=False))
    assert asked.read_text().split() == ["build:default", "demo", "demo.dead"]
    assert all(line in shown for line in lines), shown
    assert any(wrong_words in sentence for sentence in wrong(seen))


def test_a_release_of_a_version_that_could_not_ask_the_broker_is_no_problem_and_named():
    seen = found(queues={})
    ask_for_queues(seen, ["/srv/demo/current/bin/celery-ops-env", "/srv/demo/current/bin/celery-ops-queues"])
    shown = "\n".join(text(seen, [], has_programs=True, has_queues=False))
    assert "an earlier version of the kit built this release. Deploy: ansible-playbook playbooks/deploy.yml" in shown
    assert seen.refused == []


def test_an_old_generation_that_has_finished_is_no_problem():
    assert wrong(found(programs={WORKER: program(state="STOPPED", pid=0, retires=True)})) == []
    assert (
        wrong(found(programs={WORKER: program(state="STOPPING", release="r0", health="draining", retires=True)})) == []
    )


def test_the_nodes_of_a_cluster_are_shown_and_what_is_missing(monkeypatch):
    nodes = ["rabbit@a", "rabbit@b", "rabbit@c"]
    state = State(members=nodes[:2], running=nodes[:1], alarms=["rabbit@a disk resource_limit"])
    monkeypatch.setattr(look.rabbitmq_cluster, "state", lambda: state)
    seen = found()
    look.look_at_cluster(seen, nodes)
    lines = text(seen, problems(seen, has_programs=False), has_programs=False, has_queues=True)
    assert "cluster: rabbit@a running, rabbit@b down, rabbit@c missing" in lines
    assert [line.partition(". ")[0] for line in lines if "cluster: " in line][1:] == [
        "- The broker's cluster: rabbit@c is not a member",
        "- The broker's cluster: rabbit@b does not run",
        "- The broker's cluster: alarm: rabbit@a disk resource_limit",
    ]


def test_a_rotation_that_was_interrupted_is_a_problem_unless_it_goes_on_just_now():
    assert any("playbooks/rotate_secrets.yml" in line for line in wrong(found(rotation=True)))
    assert wrong(found(rotation=True, lock={"at": "now", "renewed": time.time()})) == []


@pytest.mark.parametrize(("days", "says"), [(29.5, "ends in 29 days"), (-1, "has ended")])
def test_a_certificate_that_ends_soon_is_a_problem(days, says):
    soon = found(certificates={"/etc/rabbitmq/tls/cert.pem": time.time() + days * 86400})
    [line] = wrong(soon)
    assert says in line
    assert "playbooks/site.yml" in line
    fine = found(certificates={"/etc/rabbitmq/tls/cert.pem": time.time() + 60 * 86400})
    assert wrong(fine) == []
    assert any(line.startswith("certificates: /etc/rabbitmq/tls/cert.pem until 20") for line in shown(fine))


def shown(seen):
    return text(seen, [], has_programs=True, has_queues=True)


GROUPS = {"rabbitmq": ["hub"], "worker": ["one", "db.example.com"], "web": ["two"]}


def consumer(queue, channel="<rabbit@hub.1.9.0>"):
    return {"queue_name": queue, "channel_pid": channel}


def test_a_worker_whose_host_is_not_in_the_group_is_found_by_the_queue_of_its_control_commands():
    others = [
        consumer(f"{WORKER}@one.celery.pidbox"),
        consumer(f"{WORKER}@db.example.com.celery.pidbox"),
        consumer(f"{WORKER}@one.0a1b2c3d.celery.pidbox"),  # of a cluster
        consumer("celery@laptop.celery.pidbox"),  # somebody's own
        consumer("demo"),
    ]
    assert unlisted_workers(others, "demo", GROUPS) == []
    gone = [consumer(f"{WORKER}@two.celery.pidbox", "a"), consumer(f"{WORKER}@gone.example.com.0a1b2c3d.x.pidbox", "b")]
    assert unlisted_workers([*others, *gone], "demo", GROUPS) == [
        (WORKER, "gone.example.com", "b"),
        (WORKER, "two", "a"),
    ]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("gone", "is not in the inventory's groups. Write it into the group worker again and type: ansible-playbook "),
        ("gone", f"playbooks/uninstall.yml --limit gone; or type on it: supervisorctl stop {WORKER}"),
        ("two", "two is not in the group worker. Remove its workers: ansible-playbook playbooks/site.yml"),
        ("hub", "worker, scheduler and web. Remove demo from it: ansible-playbook playbooks/uninstall.yml --limit hub"),
    ],
)
def test_a_worker_of_a_host_that_is_not_in_the_group_is_named_with_what_to_type(host, says):
    [sentence] = wrong(found(groups=GROUPS, unlisted=[UnlistedWorker(WORKER, host, "10.0.0.9:40100")]))
    assert sentence.startswith(f"{WORKER} on {host} (connected from 10.0.0.9:40100) takes tasks, and {host} is not in ")
    assert says in sentence
