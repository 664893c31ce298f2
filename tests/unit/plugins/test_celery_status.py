"""What a status says of what was seen on a host; tests/infra runs the module on one."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import deploy_lease, proc
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import Disk
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import State
from ansible_collections.celery_ops.kit.plugins.module_utils.status import look, metrics
from ansible_collections.celery_ops.kit.plugins.module_utils.status.broker import Answer, answer_of
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import (
    Status,
    Unlisted,
    ask_for_queues,
    store_of,
    unlisted,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import UNHEALTHY, problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import pause, queue_table, size, text, verdict
from support.statuses import FLOWER
from support.wait import wait_until

WORKER = "demo-worker-default-1a2b3c4d"


WORK = {"run": "r1", "who": "anna@control", "what": "deploy", "phase": "workers", "since": "noon", "pid": 9}


def program(**more):
    well = {"state": "RUNNING", "pid": 7, "uptime": 90061, "release": "r1", "health": "ready", "why": "", "restarts": 2}
    works = {
        "memory": 98566144,
        "active": 1,
        "slots": 2,
        "reserved": 4,
        "queues": ["demo"],
        "paused": [],
        "retires": False,
    }
    return well | works | {"program": "demo-worker-default"} | more


def found(*, programs=None, **more):
    programs = {WORKER: program()} if programs is None else programs
    queues = {
        "demo": {"messages": 5, "ready": 4, "unacked": 1, "consumers": 1},
        "demo.dead": {"messages": 0, "ready": 0, "unacked": 0, "consumers": 0},
    }
    return Status("demo", **{"host": "h", "release": "r1", "programs": programs, "queues": queues, **more})


def wrong(seen, *, programs=True):
    return problems(seen, has_programs=programs)


def test_nothing_is_wrong_with_a_healthy_system():
    assert wrong(found()) == []
    assert verdict([]) == ["OK"]
    assert shown(found()) == [
        "demo on h: release r1, since 1970-01-01 " + time.strftime("%H:%M:%S", time.localtime(0)),
        "PROGRAM                       STATE    PID  UP          RESTARTS  MEMORY  RELEASE  HEALTH  QUEUES",
        f"{WORKER}  RUNNING  7    1d 1:01:01  2         94M     r1       ready   demo (1/2 busy)",
        "orphans: none",
        "lock: free",
        "last: -",
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
        (found(queues={"demo.dead": {"messages": 3, "consumers": 0}}), "3 dead-lettered tasks. List"),
        (
            found(queues={"demo.dead": {"messages": 3, "consumers": 0, "reasons": {"expired": 2, "rejected": 1}}}),
            "3 dead-lettered tasks (2 expired, 1 rejected). List them: ansible-playbook playbooks/dead_letters.yml",
        ),
        (
            found(queues={"demo.dead": {"messages": 9, "consumers": 0, "reasons": {"maxlen": 3}}}),
            "9 dead-lettered tasks (of the first 3: 3 maxlen). List them",
        ),
        (found(queues={"demo": {"messages": 3, "consumers": 0}}), "Nothing consumes from demo, where 3 tasks wait"),
        (found(queues={"demo": {"messages": 0, "consumers": 0, "state": "down"}}), "The queue demo has no leader"),
        *[
            (found(flower={**FLOWER, "state": state, **more}), says)
            for state, more, says in [
                (
                    "",
                    {"pid": 0},
                    "Flower is not installed here, and flower_host is this host. Install it: ansible-playbook",
                ),
                ("STOPPED", {"pid": 0}, "flower-demo was stopped manually. Start it: supervisorctl start flower-demo"),
                ("BACKOFF", {"pid": 0}, "flower-demo is BACKOFF. Look: tail -n 30 /var/log/flower-demo/flower.log"),
                ("RUNNING", {"answers": False}, "Flower does not answer at http://127.0.0.1:5555/. Look: tail"),
            ]
        ],
        (
            found(disks=[Disk("/", 94, 9), Disk("/srv", 97, 9)]),
            "The file system of /srv is 97 % full. Make room, look: df",
        ),
        (found(disks=[Disk("/srv", 7, 100)]), "The file system of /srv has 100 % of its inodes in use. Look: du -x"),
        (found(disks=[Disk("/srv", 97, 9, readonly=True)]), "The file system of /srv is read-only"),
        (found(lock={"renewed": time.time() - 3600}), "playbooks/unlock.yml"),
        (found(work=WORK), "The work of an interrupted run goes on: deploy of anna@control, phase workers, since noon"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_type(seen, says):
    [sentence] = wrong(seen)
    assert says in sentence
    assert verdict([sentence]) == ["PROBLEMS:", f"- {sentence}"]
    assert text(seen, has_programs=True, has_queues=True)


def test_a_lock_of_a_deploy_that_is_alive_is_not_called_stale_by_a_clock_that_was_set(monkeypatch):
    lease = deploy_lease.renewed({"id": "r1", "who": "me", "what": "deploy", "at": "now"})
    at = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: at)
    assert wrong(found(lock=lease)) == []


def test_what_is_on_its_way_is_not_wrong():
    draining = {WORKER: program(release="r0", state="STOPPING", health="draining")}
    assert wrong(found(programs=draining)) == []
    deploying = {"who": "me", "what": "deploy", "at": "now", "renewed": time.time()}
    assert wrong(found(programs={WORKER: program(release="r0")}, lock=deploying)) == []
    seen = found(lock={**deploying, "id": "r1"}, work=WORK)
    assert wrong(seen) == []
    lines = shown(seen)
    assert "work: deploy of anna@control, phase workers, since noon" in lines


def test_unsafe_settings_are_shown_with_the_line_to_write_and_are_no_problem():
    write = "app.conf.task_acks_late = True"
    seen = found(unsafe=[{"setting": "task_acks_late", "value": False, "write": write}])
    assert wrong(seen) == []
    assert f"unsafe setting: task_acks_late is False; write: {write}" in shown(seen)


def test_a_host_that_is_only_the_broker():
    seen = found(release="", programs={})
    assert wrong(seen, programs=False) == []
    assert text(seen, has_programs=False, has_queues=True) == []
    assert "queues: none" in text(found(queues={}), has_programs=False, has_queues=True)


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
    lines = shown(found(deploys=[failed, {**entry, "changed": ["environment"]}, *4 * [entry]]))
    assert len([line for line in lines if line.startswith(("last", "earlier"))]) == 3
    assert "last: deploy r1 -> r2: failed: web on a; taken back, anna, noon" in lines
    assert "earlier: deploy r1 -> r1 (environment): good, anna, noon" in lines


@pytest.mark.parametrize(
    ("said", "lines", "wrong_words"),
    [
        (
            '{"asked": true, "queues": {"demo": {"messages": 3, "consumers": 0}, "demo.dead": null}, "reason": ""}',
            ["it has no queue demo.dead, so that tasks no worker could do are lost"],
            "Nothing consumes from demo, where 3 tasks wait",
        ),
        (
            '{"asked": true, "queues": {"demo.dead": {"messages": 2, "consumers": 0}}, "reason": ""}',
            [
                "broker: celery_app_broker_url is not a host of the kit's: its alarms, and other queues",
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
    lines_ = "\n".join(text(seen, has_programs=True, has_queues=False))
    assert asked.read_text().split() == ["build:default", "demo", "demo.dead"]
    assert all(line in lines_ for line in lines), lines_
    assert any(wrong_words in sentence for sentence in wrong(seen))


def test_a_broker_is_asked_without_the_place_where_ansible_unpacks_modules(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/run")
    script = tmp_path / "ask"
    script.write_text('#!/bin/sh\necho "{\\"queues\\": {}, \\"reason\\": \\"$(env | grep ^TMPDIR=/run)\\"}"\n')
    script.chmod(0o755)
    seen = found(queues={})
    ask_for_queues(seen, [str(script)])
    assert seen.refused == []


def test_a_release_of_a_version_that_could_not_ask_the_broker_is_no_problem_and_named():
    seen = found(queues={})
    ask_for_queues(seen, ["/srv/demo/current/bin/celery-ops-env", "/srv/demo/current/bin/celery-ops-queues"])
    lines = "\n".join(text(seen, has_programs=True, has_queues=False))
    assert "an earlier version of the kit built this release. Deploy: ansible-playbook playbooks/deploy.yml" in lines
    assert seen.refused == []


def test_an_old_generation_that_has_finished_is_no_problem():
    assert wrong(found(programs={WORKER: program(state="STOPPED", pid=0, retires=True)})) == []
    assert (
        wrong(found(programs={WORKER: program(state="STOPPING", release="r0", health="draining", retires=True)})) == []
    )
    assert wrong(found(programs={WORKER: program(state="STOPPED", release="r0", pid=0, retires=True)})) == []


def test_the_nodes_of_a_cluster_are_shown_and_what_is_missing(monkeypatch):
    nodes = ["rabbit@a", "rabbit@b", "rabbit@c"]
    state = State(members=nodes[:2], running=nodes[:1], alarms=["rabbit@a disk resource_limit"])
    monkeypatch.setattr(look.rabbitmq_cluster, "state", lambda: state)
    seen = found()
    look.look_at_cluster(seen, nodes)
    lines = text(seen, has_programs=False, has_queues=True) + verdict(problems(seen, has_programs=False))
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
    return text(seen, has_programs=True, has_queues=True)


GROUPS = {"rabbitmq": ["hub"], "worker": ["one", "db.example.com"], "web": ["two"], "scheduler": ["one"]}
SCHEDULER = "demo-scheduler-1a2b3c4d"


def consumer(queue, channel="<rabbit@hub.1.9.0>"):
    return {"queue_name": queue, "channel_pid": channel}


def test_a_worker_whose_host_is_not_in_the_group_is_found_by_the_queue_of_its_control_commands(monkeypatch):
    others = [
        consumer(f"{WORKER}@one.celery.pidbox"),
        consumer(f"{WORKER}@db.example.com.celery.pidbox"),
        consumer(f"{WORKER}@one.0a1b2c3d.celery.pidbox"),  # of a cluster
        consumer("celery@laptop.celery.pidbox"),  # somebody's own
        consumer("demo"),
    ]
    assert unlisted(Answer(consumers=others), "demo", GROUPS) == []
    gone = [consumer(f"{WORKER}@two.celery.pidbox", "a"), consumer(f"{WORKER}@gone.example.com.0a1b2c3d.x.pidbox", "b")]
    monkeypatch.setattr(look, "rows_of", lambda *_: [{"pid": "a", "connection": "c1"}])
    nameless = [{"pid": "c1", "peer": "10.0.0.9:40100", "name": ""}]
    assert unlisted(Answer(consumers=[*others, *gone], connections=nameless), "demo", GROUPS) == [
        Unlisted(WORKER, "worker", "gone.example.com", ""),
        Unlisted(WORKER, "worker", "two", "10.0.0.9:40100"),
    ]


def connection(name, peer="10.0.0.9:40100"):
    return {"pid": peer, "peer": peer, "name": name}


def test_a_program_whose_host_is_not_in_the_group_is_found_by_the_name_of_its_connections():
    others = [
        connection(f"{SCHEDULER} on one"),
        connection(f"{WORKER} on db.example.com"),
        connection("demo-web-1a2b3c4d on two"),
        connection("demo-watchdog"),
        connection("demo-watchdog-1a2b3c4d on gone"),
        connection(f"{SCHEDULER}@gone"),  # what a lease's connection was called before
        connection("other-scheduler-1a2b3c4d on gone"),
        connection("somebody's own tool on gone"),
    ]
    assert unlisted(Answer(connections=others), "demo", GROUPS) == []
    gone = [
        connection(f"{SCHEDULER} on two", "10.0.0.9:1"),
        connection(f"{WORKER} on two", "10.0.0.9:2"),
        connection(f"{WORKER} on two", "10.0.0.9:3"),
    ]
    consumers = [consumer(f"{WORKER}@two.celery.pidbox")]
    assert unlisted(Answer(consumers=consumers, connections=[*others, *gone]), "demo", GROUPS) == [
        Unlisted(SCHEDULER, "scheduler", "two", "10.0.0.9:1"),
        Unlisted(WORKER, "worker", "two", "10.0.0.9:2"),
    ]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (
            "gone",
            "is not in the inventory's groups. Write gone into the group worker again and type: ansible-playbook ",
        ),
        ("gone", f"playbooks/uninstall.yml --limit gone; or type on it: supervisorctl stop {WORKER}"),
        ("two", "two is not in the group worker. Remove it: ansible-playbook playbooks/site.yml"),
        ("hub", "worker, scheduler and web. Remove demo from it: ansible-playbook playbooks/uninstall.yml --limit hub"),
    ],
)
def test_a_worker_of_a_host_that_is_not_in_the_group_is_named_with_what_to_type(host, says):
    [sentence] = wrong(found(groups=GROUPS, unlisted=[Unlisted(WORKER, "worker", host, "10.0.0.9:40100")]))
    assert sentence.startswith(f"{WORKER} on {host} (connected from 10.0.0.9:40100) takes tasks, and {host} is not in ")
    assert says in sentence


def test_a_scheduler_of_a_host_that_was_taken_out_of_all_groups_is_named():
    [sentence] = wrong(found(groups=GROUPS, unlisted=[Unlisted(SCHEDULER, "scheduler", "gone", "")]))
    assert sentence.startswith(f"{SCHEDULER} on gone schedules tasks, and gone is not in the inventory's groups.")
    assert "Write gone into the group scheduler again and type: ansible-playbook playbooks/uninstall.yml" in sentence
    assert sentence.endswith(f"or type on it: supervisorctl stop {SCHEDULER}")


STORE = [
    "# Server", "redis_version:7.0.15", "role:master", "used_memory:1048576", "maxmemory:104857600", "evicted_keys:3",
    "rdb_last_bgsave_status:ok", "aof_last_write_status:ok", "db1:keys=4,expires=4,avg_ttl=9", "db2:keys=1,expires=0",
]  # fmt: skip


def test_a_result_store_is_shown_and_what_is_wrong_with_it():
    seen = found(store=store_of(STORE))
    assert wrong(seen) == []
    line = "result store: Redis 7.0.15, primary, 5 keys, memory 1.0M of 100M, 3 evicted, persistence ok"
    assert line in shown(seen)
    full = [line.replace("used_memory:1048576", "used_memory:99999999") for line in STORE]
    [sentence] = wrong(found(store=store_of(full)))
    assert sentence.startswith("The result store has used 95 % of its memory. Raise result_store_max_memory")
    broken = [line.replace("aof_last_write_status:ok", "aof_last_write_status:err") for line in STORE]
    [sentence] = wrong(found(store=store_of([*broken])))
    assert sentence.startswith("The result store: the last write to the append-only file failed. Look: tail")
    [sentence] = wrong(found(store=store_of([*STORE, "master_link_status:down"])))
    assert "no link to its primary" in sentence
    silent = found(store={"reachable": False, "why": "Connection refused"})
    assert wrong(silent) == [
        "The result store does not answer (Connection refused). Start it: service redis-server start"
    ]
    assert "result store: does not answer" in shown(silent)


NODE = {
    "name": "rabbit@h",
    "memory": 2**27,
    "memory_limit": 2**30,
    "disk_free": 2**33,
    "disk_limit": None,
    "is_here": True,
}


def test_an_alarm_of_a_broker_that_is_alone_is_a_problem():
    other = {**NODE, "name": "rabbit@other", "is_here": False}
    assert not any("rabbit@other" in line for line in shown(found(nodes=[NODE, other])))
    seen = found(nodes=[NODE], alarms=[{"node": "rabbit@h", "alarm": "disk"}])
    assert "node rabbit@h: memory 128M of 1.0G, disk 8.0G free, alarm below -, alarms: disk" in shown(seen)
    [sentence] = wrong(seen)
    assert sentence == (
        "The broker has its disk alarm on and takes no message, so that nothing is published. Look: "
        "df -h /var/lib/rabbitmq"
    )


@pytest.mark.parametrize(("count", "words"), [(None, "-"), (0, "0B"), (1023, "1023B"), (2**40 * 3, "3.0T")])
def test_sizes(count, words):
    assert size(count) == words


def test_names_of_queues_may_be_any_bytes():
    coded = {"queues": [], "consumers": [], "nodes": [], "alarms": []}
    name = base64.b64encode("Wörter <b>".encode()).decode()
    coded["queues"] = [{"name": name, "messages": 3, "messages_ready": None, "state": "down"}]
    coded["consumers"] = [{"queue": name, "channel": "<c>"}]
    ends, called = (base64.b64encode(one).decode() for one in (b"10.0.0.9:1 -> 10.0.0.2:5672", b"w on h"))
    coded["connections"] = [{"pid": "<p>", "ends": ends, "name": called}]
    coded["reasons"] = [base64.b64encode(b"rejected").decode(), None]
    said = f"warning\nanswer {base64.b64encode(json.dumps(coded).encode()).decode()}\nok\n"
    answer = answer_of(said)
    assert answer.queues[0]["name"] == "Wörter <b>"
    assert answer.consumers == [{"queue_name": "Wörter <b>", "channel_pid": "<c>"}]
    assert answer.connections == [{"pid": "<p>", "peer": "10.0.0.9:1", "name": "w on h"}]
    assert answer.reasons == ["rejected", "unknown"]
    with pytest.raises(ValueError, match="no answer"):
        answer_of("Error: unable to perform an operation on node")


def test_the_memory_of_a_program_is_that_of_all_its_processes():
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as main:
        wait_until(lambda: proc.children(main.pid), 10, "the child")
        taken = look.memory_of([main.pid])
        alone = int(re.search(r"Pss: +(\d+)", Path(f"/proc/{main.pid}/smaps_rollup").read_text())[1]) * 1024
        for child in proc.children(main.pid):
            os.kill(child.pid, signal.SIGKILL)
    assert taken[main.pid] > alone > 0


def test_the_last_runs_of_a_schedule_are_read_and_a_broken_file_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Layout, "state", tmp_path)
    file = tmp_path / "beat-schedule.json"
    file.write_text('{"tick": ["2026-11-26T15:11:21+00:00", 14], "never": null, "odd": ["soon", 1]}')
    assert look.last_runs(Layout("demo")) == {"tick": 1795705881.0}
    file.write_text("[]")
    assert look.last_runs(Layout("demo")) == {}


def test_queues_are_a_table_and_what_is_not_known_a_dash():
    queues = [
        {"name": "shop", "ready": 4, "unacked": 1, "consumers": 2, "oldest": 75.2, "rate": 3.25},
        {"name": "foreign", "messages": 3, "consumers": 0},
    ]
    assert queue_table(queues) == [
        "QUEUE    READY  UNACKED  CONSUMERS  OLDEST   RATE",
        "shop     4      1        2          0:01:15  3.25/s",
        "foreign  3      -        0          -        -",
    ]
    assert queue_table([]) == []


def hour_file(tmp_path, monkeypatch, **more):
    """The watchdog's last hour: two samples in one point, one in the next but one."""
    monkeypatch.setattr(Layout, "state", tmp_path)
    (tmp_path / "metrics").mkdir()
    now = time.time() // 30 * 30
    column = {"ready": [1, 5, None], "unacked": [0, 0, 2], "consumers": [1, 1, 1], "oldest": [0.0, 9.5, 3.0]}
    queues = {"demo": {**column, "rate": [1.0, 2.0, None]}}
    given = {"format": 1, "times": [now - 60, now - 50, now], "queues": queues, "programs": {}, **more}
    (tmp_path / "metrics/hour.json").write_text(json.dumps(given))
    return int(now // 30)


def test_the_last_hour_is_put_into_points_of_half_a_minute(tmp_path, monkeypatch):
    last = hour_file(tmp_path, monkeypatch)
    seen = metrics.last_hour(Layout("demo"))
    assert (seen["every"], seen["first"]) == (30, last - 2)
    assert seen["queues"]["demo"]["ready"] == [5, None, None]
    assert seen["queues"]["demo"]["rate"] == [1.5, None, None]
    assert metrics.now_of(Layout("demo")) == {"demo": {"oldest": 3.0}}


@pytest.mark.parametrize("more", [{"times": []}, {"queues": {"demo": {}}}, {"queues": None}, {"times": [1, "x"]}])
def test_a_last_hour_that_is_damaged_says_nothing(tmp_path, monkeypatch, more):
    hour_file(tmp_path, monkeypatch, **more)
    assert metrics.last_hour(Layout("demo")) == {}
    assert metrics.now_of(Layout("demo")) == {}


def test_the_watchdogs_metrics_are_read(tmp_path, monkeypatch):
    hour_file(tmp_path, monkeypatch)
    line = 'celery_ops_program_restarts_total{app="demo",program="demo-worker-default",host="a\\"b"} 3\n'
    (tmp_path / "metrics/demo.prom").write_text(f"# HELP x y\n{line}celery_ops_watchdog_timestamp_seconds 1.5e9\nodd\n")
    restarts, stamp = metrics.samples(Layout("demo"))
    assert (restarts[1]["program"], restarts[2]) == ("demo-worker-default", 3.0)
    assert stamp == ("celery_ops_watchdog_timestamp_seconds", {}, 1.5e9)


def test_what_is_paused_is_read_and_what_is_over_counts_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Layout, "state", tmp_path)
    one = {"what": "queue", "name": "photos", "since": 1.0, "until": None, "who": "anna@control", "why": "disk"}
    (tmp_path / "pause.json").write_text(json.dumps([one, {**one, "until": 2.0}]))
    [seen] = look.pauses(Layout("demo"))
    assert seen == {**one, "by": ""}
    assert pause(seen).endswith("until resume.yml, by anna@control: disk")
    (tmp_path / "pause.json").write_text('{"x": 1}')
    assert look.pauses(Layout("demo")) == []


@pytest.mark.parametrize(
    ("what", "by", "words"),
    [
        ("queue", "", "queue photos, since"),
        ("all", "", "until resume.yml"),
        ("web", "maintenance", "the web, which answers 503, since"),
        ("scheduler", "maintenance", "until maintenance.yml -e celery_app_maintenance=off"),
    ],
)
def test_what_is_paused_is_said_with_what_ends_it(what, by, words):
    one = {"what": what, "name": "photos", "since": 1.0, "until": None, "who": "anna", "why": "", "by": by}
    assert words in pause(one)


def test_what_a_killed_deploy_has_left_closed_is_a_problem():
    closed = {"what": "all", "name": "", "since": 1.0, "until": None, "who": "anna", "why": "", "by": "deploy"}
    [sentence] = wrong(found(paused=[closed]))
    assert "has left demo closed" in sentence
    assert "playbooks/maintenance.yml -e celery_app_maintenance=off" in sentence
    assert wrong(found(paused=[closed], lock={"id": "r", "renewed": time.time()})) == []
    assert wrong(found(paused=[{**closed, "by": "maintenance"}])) == []


def test_a_worker_shows_its_paused_queues():
    seen = found(programs={WORKER: program(queues=["mail"], paused=["demo"])})
    assert any(line.endswith("mail, demo (paused) (1/2 busy)") for line in shown(seen))


def test_a_paused_queue_without_a_consumer_is_no_problem():
    waits = {"demo": {"messages": 3, "consumers": 0}}
    assert wrong(found(queues=waits, programs={WORKER: program(queues=[], paused=["demo"])})) == []
    assert len(wrong(found(queues=waits))) == 1


def test_a_last_hour_with_an_absurd_time_in_it_takes_no_more_memory():
    column = {name: [1, 2] for name in metrics.COLUMNS}
    seen = metrics.hour_of([0.0, 1.8e9], {"demo": column})
    assert len(seen["queues"]["demo"]["ready"]) == metrics.POINTS
    assert seen["queues"]["demo"]["ready"][-1] == 2
