"""Every check passes on a host that is as it should be, and fails or warns on one that is not."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.celery_ops.kit.plugins.action.celery_doctor import control_of, merged, skew, unknown
from ansible_collections.celery_ops.kit.plugins.module_utils import doctor, proc
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import Disk
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import (  # noqa: F401 - they register their checks
    ACCEPTED,
    CHECKS,
    FAIL,
    PASS,
    SKIP,
    WARN,
    Finding,
    broker,
    celery_settings,
    examine,
    files,
    machine,
    programs,
    store,
    text,
    versions,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.celery_settings import SETTINGS
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import (
    Broker,
    Control,
    Facts,
    File,
    Host,
    Pidfile,
    Program,
    Secret,
    Store,
    Supervisor,
    Wanted,
    orphans,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import ERLANG_COOKIE
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Unlisted
from support.wait import wait_until

CONF = """[program:shop-worker-default-0a1b2c3d]
command=/x/celery -A shop worker -P prefork --soft-time-limit 270 --time-limit 300
stopwaitsecs=330
stdout_logfile_maxbytes=20MB
"""
WORKER = Program("shop-worker-default-0a1b2c3d", CONF, "RUNNING", 7, heartbeat=2.0)
WATCHDOG = Program("shop-watchdog-0a1b2c3e", "[program:x]\n", "RUNNING", 8, heartbeat=2.0)
QUEUE = {"type": "quorum", "durable": True, "members": ["a"], "online": ["a"]}
FILES = {
    one.path: one
    for one in (
        File("/etc/shop/env-1", 0o640, "root"),
        File("/etc/shop", 0o750, "root"),
        File("/srv/shop", 0o755, "root"),
        File("/srv/shop/releases", 0o755, "root"),
        File("/srv/shop/deployments", 0o700, "root"),
        File("/var/log/shop", 0o750, "root"),
        File("/etc/supervisor/conf.d", 0o755, "root"),
        File("/usr/local/bin/shop", 0o755, "root"),
        File(str(ERLANG_COOKIE), 0o400, "rabbitmq"),
        File("/var/lib/celery-ops/redis-admin", 0o600, "root"),
        File("/etc/rabbitmq/tls/key.pem", 0o640, "root"),
    )
}
HEALTHY = Facts(
    "shop",
    Wanted(queues=("shop",)),
    Host(
        files=FILES,
        listeners=frozenset({("127.0.0.1", 5672), ("127.0.0.1", 25672), ("0.0.0.0", 8000)}),
        disks=(Disk("/", 40, 10),),
        logs=(File("/var/log/shop/a.log", 0o644, "root", 1000),),
        synchronised=True,
        memory={"MemTotal": 100, "MemAvailable": 50, "SwapTotal": 10, "SwapFree": 10},
        overcommit=1,
        huge_pages="madvise",
        packages={"redis-server": "5:7.0.15-1~deb12u10", "supervisor": "4.2.5-1"},
        certificates={"/etc/rabbitmq/tls/cert.pem": 300.0},
        groups=frozenset({"worker", "rabbitmq"}),
        debian="12",
        needrestart="i",
    ),
    Broker(
        status={
            "disk_free": 50_000_000_000,
            "disk_free_limit": 1_000_000_000,
            "vm_memory_high_watermark_setting": {"relative": 0.4},
            "vm_memory_high_watermark_limit": 1000,
            "memory": {"total": {"rss": 100}},
            "file_descriptors": {"total_limit": 65_000, "total_used": 100},
            "processes": {"used": 400, "limit": 1_000_000},
            "alarms": [],
            "is_under_maintenance": False,
        },
        cluster={"disk_nodes": ["a"], "feature_flags": [{"name": "x", "state": "enabled", "stability": "stable"}]},
        definitions={
            "users": [
                {"name": "shop", "tags": [], "password_hash": ""},
                {"name": "flower-shop", "tags": ["celery-ops-limited"]},
            ],
            "permissions": [{"user": name, "vhost": "shop"} for name in ("shop", "flower-shop")],
            "policies": [
                {"vhost": "shop", "name": "p", "definition": {"dead-letter-exchange": "shop.dead", "delivery-limit": 5}}
            ],
            "queues": [],
        },
        queues=({"name": "shop", **QUEUE}, {"name": "shop.dead", **QUEUE}),
        consumer_timeout=86_400,
        deprecated=(),
    ),
    Store(
        info={
            "aof_enabled": "1",
            "maxmemory": "1000",
            "used_memory": "100",
            "maxmemory_policy": "volatile-lru",
            "connected_clients": "2",
            "maxclients": "100",
            "role": "master",
            "connected_slaves": "0",
        },
        conf={"bind": "127.0.0.1"},
        acl="user default off\nuser shop on",
    ),
    Supervisor(
        socket=File("/run/supervisor.sock", 0o700, "root"),
        unit={"KillMode": "process", "TimeoutStopUSec": "1h", "UnitFileState": "enabled"},
        programs=(WORKER, WATCHDOG),
        recorded=((WORKER.name, f"{WORKER.name}-again"), (WATCHDOG.name,)),
        pidfiles=(Pidfile("/run/shop/a.pid", 7, "/srv/shop/current/venv/bin/celery"),),
    ),
    {
        "versions": {"celery": "5.7.0", "redis": "6.1.0"},
        "settings": "celery_ops.settings",
        "default_queue": "shop",
        "routes": [],
        "schedule": ["celery-ops-tick", "report"],
        "broker": {"transport": "amqp"},
        "backend": {"kind": "redis"},
        "unsafe": [],
        "refused": [],
    },
    Control("/x/.secrets", 0o700, (Secret("shop_broker_password", 0o600, 40, 10.0),), skew=0.0),
)


def with_host(**changes: Any) -> Facts:
    return replace(HEALTHY, host=replace(HEALTHY.host, **changes))


def with_file(path: str, mode: int, owner: str = "root") -> Facts:
    return with_host(files={**FILES, path: File(path, mode, owner)})


def with_broker(**changes: Any) -> Facts:
    return replace(HEALTHY, broker=replace(HEALTHY.broker, **changes))


def with_status(**changes: Any) -> Facts:
    return with_broker(status={**HEALTHY.broker.status, **changes})


def with_cluster(**changes: Any) -> Facts:
    return with_broker(cluster={**HEALTHY.broker.cluster, **changes})


def with_definitions(**changes: Any) -> Facts:
    return with_broker(definitions={**HEALTHY.broker.definitions, **changes})


def with_queue(**changes: Any) -> Facts:
    return with_broker(queues=(*HEALTHY.broker.queues, {"name": "more", **QUEUE, **changes}))


def with_store(**info: str) -> Facts:
    return replace(HEALTHY, store=replace(HEALTHY.store, info={**HEALTHY.store.info, **info}))


def with_programs(*more: Program, **changes: Any) -> Facts:
    return replace(
        HEALTHY,
        supervisor=replace(HEALTHY.supervisor, **{"programs": (*more, WATCHDOG), **changes}),
    )


def with_inspection(**changes: Any) -> Facts:
    return replace(HEALTHY, inspection={**HEALTHY.inspection, **changes})


def with_control(**changes: Any) -> Facts:
    return replace(HEALTHY, control=replace(HEALTHY.control, **changes))


def wanting(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return replace(facts, wanted=replace(facts.wanted, **changes))


def secret(**changes: Any) -> Facts:
    return with_control(secrets=(replace(HEALTHY.control.secrets[0], **changes),))


OPEN = frozenset({("0.0.0.0", port) for port in (5672, 15672, 25672, 9001)})
TWO = {"disk_nodes": ["a", "b"]}
FAULTS: dict[str, tuple[Callable[[], Facts], str]] = {
    "rabbitmq-answers": (lambda: with_broker(refused="it is down"), FAIL),
    "rabbitmq-disk-limit": (lambda: with_status(disk_free_limit=50_000_000), FAIL),
    "rabbitmq-disk-free": (lambda: with_status(disk_free=900_000_000), FAIL),
    "rabbitmq-memory-watermark": (lambda: with_status(vm_memory_high_watermark_setting={"relative": 0.95}), FAIL),
    "rabbitmq-memory-used": (lambda: with_status(memory={"total": {"rss": 900}}), WARN),
    "rabbitmq-file-handles": (lambda: with_status(file_descriptors={"total_limit": 1024, "total_used": 9}), WARN),
    "rabbitmq-processes": (lambda: with_status(processes={"used": 9, "limit": 10}), FAIL),
    "rabbitmq-alarms": (lambda: with_status(alarms=["disk"]), FAIL),
    "rabbitmq-guest": (
        lambda: with_broker(
            definitions={**HEALTHY.broker.definitions, "users": [{"name": "guest", "tags": []}]}, guest_is_open=True
        ),
        FAIL,
    ),
    "rabbitmq-user": (lambda: with_definitions(users=[{"name": "shop", "tags": ["administrator"]}]), FAIL),
    "rabbitmq-permissions": (lambda: with_definitions(permissions=[{"user": "shop", "vhost": "web"}]), WARN),
    "rabbitmq-feature-flags": (
        lambda: with_cluster(feature_flags=[{"name": "x", "state": "disabled", "stability": "stable"}]),
        FAIL,
    ),
    "rabbitmq-deprecated": (lambda: with_broker(deprecated=("transient_nonexcl_queues",)), WARN),
    "rabbitmq-mirrored-queues": (
        lambda: with_definitions(policies=[{"vhost": "shop", "name": "ha", "definition": {"ha-mode": "all"}}]),
        WARN,
    ),
    "rabbitmq-dead-queue": (lambda: with_broker(queues=HEALTHY.broker.queues[:1]), FAIL),
    "rabbitmq-policy": (lambda: with_definitions(policies=[]), FAIL),
    "rabbitmq-queue-types": (lambda: with_queue(type="classic"), WARN),
    "rabbitmq-durable": (lambda: with_queue(durable=False), FAIL),
    "rabbitmq-quorum-online": (lambda: with_queue(members=["a", "b", "c"], online=["a"]), FAIL),
    "rabbitmq-quorum-members": (lambda: with_cluster(disk_nodes=["a", "b", "c"]), WARN),
    "rabbitmq-cluster-size": (lambda: wanting(with_cluster(**TWO), nodes=2), FAIL),
    "rabbitmq-partitions": (lambda: with_cluster(partitions={"a": ["b"]}), FAIL),
    "rabbitmq-maintenance": (lambda: with_status(is_under_maintenance=True), FAIL),
    "rabbitmq-unlisted-programs": (
        lambda: with_broker(unlisted=(Unlisted("shop-scheduler-0a1b2c3d", "scheduler", "gone", ""),)),
        FAIL,
    ),
    "rabbitmq-default-vhost": (lambda: with_definitions(queues=[{"name": "celery", "vhost": "/"}]), WARN),
    "rabbitmq-management-open": (lambda: with_host(listeners=OPEN), FAIL),
    "rabbitmq-plain-listener": (lambda: with_host(listeners=OPEN), FAIL),
    "rabbitmq-erlang-ports": (lambda: with_host(listeners=OPEN), FAIL),
    **{
        name: (
            lambda setting=setting: with_inspection(unsafe=[{"setting": setting, "value": 1, "write": "x"}]),
            level,
        )
        for name, (setting, level) in SETTINGS.items()
    },
    "celery-kit-settings": (lambda: with_inspection(settings=""), WARN),
    "celery-refused": (lambda: with_inspection(refused=[{"problem": "p", "write": "w"}]), FAIL),
    "celery-queues-consumed": (lambda: with_inspection(routes=["mail"]), FAIL),
    "celery-schedule": (lambda: wanting(scheduler=False), FAIL),
    "celery-transport": (lambda: with_inspection(broker={"transport": "redis"}), WARN),
    "celery-results": (lambda: with_inspection(backend={"kind": "rpc"}), WARN),
    "supervisor-answers": (lambda: with_programs(refused="nobody answers"), FAIL),
    "supervisor-socket": (lambda: with_programs(socket=File("/run/supervisor.sock", 0o777, "root")), FAIL),
    "supervisor-inet": (lambda: with_programs(inet="0.0.0.0:9001"), FAIL),
    "supervisor-unit": (lambda: with_programs(unit={"KillMode": "control-group"}), FAIL),
    "supervisor-boot": (lambda: with_programs(unit={"UnitFileState": "disabled"}), FAIL),
    "programs-running": (lambda: with_programs(replace(WORKER, state="FATAL")), FAIL),
    "programs-loaded": (lambda: with_programs(replace(WORKER, state="")), FAIL),
    "programs-surplus": (lambda: with_programs(replace(WORKER, conf="")), FAIL),
    "programs-recorded": (lambda: with_programs(replace(WORKER, name="shop-worker-other-00000000")), FAIL),
    "programs-heartbeat": (lambda: with_programs(replace(WORKER, heartbeat=90.0)), FAIL),
    "programs-watchdog": (lambda: with_programs(programs=(WORKER,)), FAIL),
    "pidfiles-stale": (lambda: with_programs(pidfiles=(Pidfile("/run/shop/a.pid", 7, ""),)), WARN),
    "pidfiles-of-others": (lambda: with_programs(pidfiles=(Pidfile("/run/shop/a.pid", 9, "/usr/sbin/cron"),)), WARN),
    "orphans": (lambda: with_programs(orphans=("pid 9 (celery)",)), FAIL),
    "times-stop": (lambda: with_programs(replace(WORKER, conf=CONF.replace("=330", "=10"))), FAIL),
    "times-soft-limit": (lambda: with_programs(replace(WORKER, conf=CONF.replace("270", "300"))), WARN),
    "times-unlimited": (lambda: with_programs(replace(WORKER, conf=CONF.replace("--time-limit 300", ""))), WARN),
    "times-unit": (lambda: with_programs(WORKER, unit={"TimeoutStopUSec": "1min 30s"}), FAIL),
    "times-consumer-timeout": (lambda: with_broker(consumer_timeout=300), FAIL),
    "cores-of-programs": (
        lambda: replace(
            with_programs(replace(WORKER, core="unlimited")), host=replace(HEALTHY.host, core_pattern="/tmp/c")
        ),
        WARN,
    ),
    "files-environment": (lambda: with_file("/etc/shop/env-1", 0o644), FAIL),
    "files-etc": (lambda: with_file("/etc/shop", 0o755), FAIL),
    "files-records": (lambda: with_file("/srv/shop/deployments", 0o755), FAIL),
    "files-logs": (lambda: with_file("/var/log/shop", 0o755), WARN),
    "files-conf-d": (lambda: with_file("/etc/supervisor/conf.d", 0o777), FAIL),
    "files-release": (lambda: with_file("/srv/shop/releases", 0o755, "shop"), FAIL),
    "files-command": (lambda: with_file("/usr/local/bin/shop", 0o757), FAIL),
    "files-erlang-cookie": (lambda: with_file(str(ERLANG_COOKIE), 0o444, "rabbitmq"), FAIL),
    "files-redis": (lambda: with_file("/var/lib/celery-ops/redis-admin", 0o604), FAIL),
    "files-keys": (lambda: with_file("/etc/rabbitmq/tls/key.pem", 0o644), FAIL),
    "files-secrets-in-conf": (lambda: with_host(secrets_in=("/etc/supervisor/conf.d/shop-a.conf",)), FAIL),
    "certificates": (lambda: with_host(certificates={"/c": 3.0}), FAIL),
    "secrets-mode": (lambda: secret(mode=0o644), FAIL),
    "secrets-length": (lambda: secret(length=8), FAIL),
    "secrets-age": (lambda: secret(days=400.0), WARN),
    "secrets-rotation": (lambda: with_control(rotation=True), WARN),
    "secrets-in-git": (lambda: with_control(in_git=True), FAIL),
    "clock-skew": (lambda: with_control(skew=-45.0), FAIL),
    "disk-space": (lambda: with_host(disks=(Disk("/srv", 97, 10),)), FAIL),
    "disk-inodes": (lambda: with_host(disks=(Disk("/srv", 7, 99),)), FAIL),
    "disk-writable": (lambda: with_host(disks=(Disk("/srv", 7, 9, True),)), FAIL),
    "log-growth": (lambda: with_host(logs=(File("/var/log/shop/a.log", 0o644, "root", 3 * 10**9),)), WARN),
    "log-rotation": (lambda: with_programs(replace(WORKER, conf=CONF.replace("20MB", "0"))), WARN),
    "clock-synchronised": (lambda: with_host(synchronised=False), FAIL),
    "reboot-pending": (lambda: with_host(reboot=("linux-image",)), WARN),
    "needrestart": (lambda: with_host(needrestart="a"), WARN),
    "upgrades-reboot": (lambda: with_host(apt={"Unattended-Upgrade::Automatic-Reboot": "true"}), WARN),
    "upgrades-services": (lambda: wanting(with_host(apt={"x": "1"}), nodes=3), WARN),
    "memory-available": (lambda: with_host(memory={"MemTotal": 100, "MemAvailable": 2}), FAIL),
    "memory-swap": (
        lambda: with_host(memory={**HEALTHY.host.memory, "SwapFree": 1}),
        WARN,
    ),
    "memory-oom": (lambda: with_host(oom_kills=2), WARN),
    "redis-overcommit": (lambda: with_host(overcommit=0), WARN),
    "redis-huge-pages": (lambda: with_host(huge_pages="always"), WARN),
    "supervisor-open": (lambda: with_host(listeners=OPEN), WARN),
    "debian-supported": (lambda: with_host(debian="11"), FAIL),
    "groups": (lambda: with_host(groups=frozenset()), FAIL),
    "redis-answers": (lambda: replace(HEALTHY, store=Store(refused="it is down")), FAIL),
    "redis-persistence": (lambda: with_store(aof_enabled="0"), FAIL),
    "redis-writes": (lambda: with_store(aof_last_write_status="err"), FAIL),
    "redis-memory-limit": (lambda: with_store(maxmemory="0"), FAIL),
    "redis-memory-policy": (lambda: with_store(maxmemory_policy="noeviction"), WARN),
    "redis-memory-used": (lambda: with_store(used_memory="950"), WARN),
    "redis-evicted": (lambda: with_store(evicted_keys="4"), WARN),
    "redis-clients": (lambda: with_store(connected_clients="90"), WARN),
    "redis-default-user": (lambda: replace(HEALTHY, store=replace(HEALTHY.store, acl="user default on nopass")), FAIL),
    "redis-plain-listener": (
        lambda: replace(HEALTHY, store=replace(HEALTHY.store, conf={"bind": "10.0.0.5"})),
        FAIL,
    ),
    "redis-replication": (lambda: with_store(role="slave", master_link_status="down"), FAIL),
    "versions-debian": (lambda: with_host(packages={"redis-server": "5:7.0.15-1~deb12u1"}), FAIL),
    "versions-python": (lambda: with_inspection(versions={"redis": "4.5.1"}), WARN),
}


def finding(facts: Facts, name: str) -> Finding:
    return next(one for one in examine(facts) if one.id == name)


def test_there_are_at_least_forty_and_each_has_a_fault_here():
    ids = [one.id for one in CHECKS]
    assert len(ids) == len(set(ids)) >= 40
    assert set(FAULTS) == set(ids)


def test_the_pages_say_how_many_there_are():
    pages = [Path(__file__).resolve().parents[3] / name for name in ("README.md", "docs/operations.md")]
    said = {int(number) for page in pages for number in re.findall(r"(\d+) checks", page.read_text())}
    assert said == {len(CHECKS)}


def test_a_host_that_is_as_it_should_be_passes_all():
    assert [one for one in examine(HEALTHY) if one.level != PASS] == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_says_how_to_mend_it(name):
    make, level = FAULTS[name]
    found = finding(make(), name)
    assert (found.level, bool(found.fix), bool(found.evidence)) == (level, True, True), found
    assert "could not be checked" not in found.evidence


def test_a_program_that_was_restarted_is_the_recorded_one_under_another_name():
    restarted = with_programs(replace(WORKER, name=f"{WORKER.name}-again"))
    assert finding(restarted, "programs-recorded").level == PASS


def test_a_program_that_has_given_itself_a_title_is_known_by_its_pid():
    facts = with_programs(WORKER, pidfiles=(Pidfile("/run/shop/web.pid", WORKER.pid, "gunicorn: master [shop.wsgi]"),))
    assert finding(facts, "pidfiles-of-others").level == PASS


def test_the_ipv6_loopback_is_open_to_nobody():
    assert finding(with_host(listeners=frozenset({("::1", 9001)})), "supervisor-open").level == PASS


def test_what_a_host_has_not_is_skipped():
    found = examine(Facts("shop", Wanted()))
    assert {one.level for one in found} == {SKIP}


def test_failures_come_first_and_what_was_accepted_counts_for_nothing():
    facts = with_host(reboot=("linux",), disks=(Disk("/", 99, 1),))
    lines = text(examine(facts), "h")
    assert lines[0].startswith("FAIL  disk-space: / 99 %")
    assert "1 fail, 1 warn" in lines[-1]
    accepted = examine(facts, ["disk-space", "reboot-pending"])
    assert doctor.count(accepted)[FAIL] == 0
    assert doctor.count(accepted)[ACCEPTED] == 2


def test_a_file_system_that_is_full_is_named_in_what_to_type():
    found = finding(with_host(disks=(Disk("/srv", 20, 1), Disk("/var/lib/shop", 97, 10))), "disk-space")
    assert (found.evidence, found.fix.split(" | ")[0]) == ("/var/lib/shop 97 %", "du -xh -d2 /var/lib/shop")


def test_programs_that_are_down_are_named_in_what_to_type():
    found = finding(with_programs(replace(WORKER, state="FATAL")), "programs-running")
    assert found.fix.startswith(f"supervisorctl start {WORKER.name}; look: tail -n 30 /var/log/shop/{WORKER.name}.log")


def test_a_check_that_breaks_hides_no_other():
    facts = with_status(processes={})
    assert finding(facts, "rabbitmq-processes").level == WARN
    assert finding(facts, "rabbitmq-alarms").level == PASS


def test_what_is_accepted_and_is_no_check_is_a_warning():
    [found] = unknown(["reboot-pending", "reboot"], [doctor.Finding(doctor.PASS, "none", "", "reboot-pending")])
    assert (found.level, found.evidence) == (doctor.WARN, "there is no check reboot")
    assert unknown(["reboot-pending"], [doctor.Finding(doctor.PASS, "none", "", "reboot-pending")]) == []


def test_the_control_nodes_findings_take_the_place_of_those_that_the_host_skipped():
    host = examine(replace(HEALTHY, control=None))
    local = examine(Facts("shop", Wanted(), control=replace(HEALTHY.control, skew=9.0)))
    found = merged(host, local)
    assert len(found) == len(CHECKS)
    assert found[0] == Finding(WARN, "+9.0 s from the control node's clock", found[0].fix, "clock-skew")


def test_a_clock_is_judged_by_the_time_around_the_call():
    assert skew(100, 101, 103) == 0
    assert skew(100, 110, 103) == 7
    assert skew(100, 95, 103) == -5


def test_secrets_are_measured_not_shown(tmp_path):
    (tmp_path / "shop_broker_password").write_text("hunter2\n")
    (tmp_path / "shop_broker_password").chmod(0o644)
    (tmp_path / "shop_broker_user").write_text("shop\n")
    found = control_of(tmp_path, "shop", 0.0)
    assert [(one.name, one.length, one.mode) for one in found.secrets] == [("shop_broker_password", 7, 0o644)]
    assert "hunter2" not in repr(found)


def test_what_a_supervisord_that_is_the_first_process_runs_is_no_orphan():
    started = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = int(started.stdout)
    try:
        if wait_until(lambda: proc.stat(pid), 5, "its start").parent != 1:
            pytest.skip("what has lost its parent gets another one than init here")
        user = pwd.getpwuid(os.getuid()).pw_name
        assert [one for one in orphans(user, set()) if f"pid {pid} " in one]
        assert not [one for one in orphans(user, {pid}) if f"pid {pid} " in one]
    finally:
        os.kill(pid, signal.SIGKILL)
