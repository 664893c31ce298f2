"""Metrics on a host: what tasks, faults and restarts do to them; and a real Prometheus with rules and dashboard."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.control import ROOT, Variants, deployed, play
from support.host import APP, Host
from support.long import LONG
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)

FILE = f"/var/lib/{APP}/metrics/{APP}.prom"
DOCS = ROOT / "docs/monitoring"
# By pid: a pattern would stop the shell that looks for it, too.
WATCHDOG = "$(supervisorctl pid $(supervisorctl status | grep -o 'petct-watchdog-[0-9a-f]*'))"
WORKER = "$(supervisorctl pid $(supervisorctl status | grep -o 'petct-worker-default-[0-9a-f]*'))"
PROMETHEUS = """
global: {scrape_interval: 2s, evaluation_interval: 2s}
rule_files: [/etc/prometheus/celery-ops.yml]
scrape_configs:
  - {job_name: node, static_configs: [{targets: ["127.0.0.1:9100"]}]}
  - {job_name: rabbitmq, static_configs: [{targets: ["127.0.0.1:15692"]}]}
"""
MARKS = {
    mark["name"]: mark["expr"].replace("$app", APP)
    for mark in json.loads((DOCS / "dashboard.json").read_text())["annotations"]["list"]
}
"""The dashboard's marks, by name."""
ASK = """
import json, sys, urllib.parse, urllib.request
for line in sys.stdin:
    url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": json.loads(line)})
    print(json.dumps(json.load(urllib.request.urlopen(url))["data"]["result"]))
"""
HOLDER = f"/var/lib/{APP}/holder.pid"
LEASE = f"celery-ops.scheduler.{APP}"
HOLD_LEASE = f"""
import os, kombu
with kombu.Connection(os.environ["CELERY_BROKER_URL"]) as connection:
    channel = connection.channel()
    kind = {{"x-queue-type": "quorum", "x-single-active-consumer": True}}
    channel.queue_declare("{LEASE}", durable=True, auto_delete=False, arguments=kind)
    channel.basic_consume("{LEASE}", callback=lambda message: None)
    with open("{HOLDER}", "w") as file:
        file.write(str(os.getpid()))
    while True:
        connection.drain_events()
"""
HARDENED_SHELL = "/usr/local/sbin/sh-077"
SEND = """
from celery.app.utils import find_app
app = find_app("petct")
for name in {names}:
    app.send_task(name, [{argument!r}, [1]], queue="petct")
"""


def metric(host: Host, name: str, **labels: str) -> float | None:
    """The sum of a metric's samples with these labels; None where there are none."""
    lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", host.output(f"cat {FILE}"), re.MULTILINE)
    found = [float(value) for text, value in lines if all(f'{key}="{one}"' in text for key, one in labels.items())]
    return sum(found) if found else None


def send(host: Host, *names: str) -> None:
    """Publish tasks; loadArray fails with the argument, another name is unknown."""
    host.output(host.in_release(f"python -c {shlex.quote(SEND.format(names=names, argument='no/such/file'))}"))


def test_tasks_are_counted_and_no_count_goes_back(host):
    labels = {"task": "loadArray"}
    begun = int(host.output("date +%s"))
    wait_until(lambda: int(host.output(f"stat -c %Y {FILE}")) >= begun + 6, 40, "what ran before in the metrics")
    before = {what: metric(host, f"celery_ops_tasks_{what}_total", **labels) for what in ("started", "failed")}
    waits = metric(host, "celery_ops_queue_wait_seconds_count", queue=APP) or 0
    send(host, *["loadArray"] * 3)

    def counted() -> bool:
        return metric(host, "celery_ops_tasks_failed_total", **labels) == before["failed"] + 3

    wait_until(counted, 40, "the failures in the metrics")
    assert metric(host, "celery_ops_tasks_started_total", **labels) == before["started"] + 3
    assert metric(host, "celery_ops_task_exceptions_total", **labels) >= 3
    assert metric(host, "celery_ops_queue_wait_seconds_count", queue=APP) >= waits + 3
    worker, restarts = host.program("worker-default"), metric(host, "celery_ops_program_restarts_total")
    host.output(f"supervisorctl restart {worker.name}")
    wait_until(lambda: metric(host, "celery_ops_program_restarts_total") == restarts + 1, 40, "the restart counted")
    assert counted()
    assert len(host.output(f"ls /run/{APP} | grep -c tasks").split()) == 1


def test_the_last_hour_is_there(host):
    found = json.loads(host.output(f"cat /var/lib/{APP}/metrics/hour.json"))
    assert found["queues"][APP].keys() == {"ready", "unacked", "consumers", "oldest", "rate"}
    columns = [column for kind in ("queues", "programs") for one in found[kind].values() for column in one.values()]
    assert {len(column) for column in columns} == {len(found["times"])}
    assert found["programs"][f"{APP}-worker-default"]["memory"][-1] > 10_000_000


def show(**variables: Any) -> None:
    """Show the metrics, by the role monitoring."""
    shown = play(
        "site", options=["--tags", "monitoring"], monitoring_node_exporter=True, monitoring_rabbitmq=True, **variables
    )
    assert shown.rc == 0, shown.text


@pytest.fixture(scope="module")
def prometheus(host):
    """A Prometheus of Debian's on the host, which scrapes what the role monitoring shows."""
    # As a hardened root, whose files the broker could not read.
    host.output(f"cat >{HARDENED_SHELL}; chmod 755 {HARDENED_SHELL}", stdin='#!/bin/sh\numask 077\nexec /bin/sh "$@"\n')
    show(ansible_shell_executable=HARDENED_SHELL)
    assert "disabled" not in host.output("rabbitmqctl -q list_feature_flags name state"), "the doctor fails then"
    assert "127.0.0.1:15692" in host.output("ss -ltn") and "0.0.0.0:15692" not in host.output("ss -ltn")
    assert host.run("dpkg -s prometheus").rc == 0 or host.run(
        "apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends prometheus"
    ).rc == 0  # fmt: skip
    host.copy(DOCS / "rules.yml", "/etc/prometheus/celery-ops.yml")
    host.output("cat >/etc/prometheus/prometheus.yml", stdin=PROMETHEUS)
    # What Debian's own configuration has scraped since the installation counts for another five minutes.
    host.output("systemctl stop prometheus; rm -rf /var/lib/prometheus/metrics2/*; systemctl start prometheus")
    wait_until(lambda: "celery_ops_info" in str(ask(host, "celery_ops_info")[0]), 60, "a scrape")
    yield
    host.output("systemctl stop prometheus")


def ask(host: Host, *queries: str) -> list[Any]:
    """What Prometheus answers to each."""
    done = host.run(f"python3 -c {shlex.quote(ASK)}", stdin="".join(json.dumps(query) + "\n" for query in queries))
    return [json.loads(line) for line in done.stdout.splitlines()] or [[] for _ in queries]


def firing(host: Host) -> set[str]:
    """The alerts that fire."""
    return {one["metric"]["alertname"] for one in ask(host, 'ALERTS{alertstate="firing"}')[0]}


@contextmanager
def shorter(host: Host, long: str, short: str) -> Iterator[None]:
    """Prometheus with a time of its rules shorter."""
    rules = (DOCS / "rules.yml").read_text()
    assert rules.count(long) == 1
    try:
        host.output("cat >/etc/prometheus/celery-ops.yml", stdin=rules.replace(long, short))
        host.output("systemctl reload prometheus")
        yield
    finally:
        host.copy(DOCS / "rules.yml", "/etc/prometheus/celery-ops.yml")
        host.output("systemctl reload prometheus")


def promtool(host: Host, *words: str) -> str:
    return host.output(shlex.join(["promtool", *words]))


@LONG
def test_what_an_interrupted_run_has_written_comes_into_force_with_the_next(host, prometheus):
    exporter = "systemctl show --property MainPID prometheus-node-exporter"
    pid = host.output(exporter)
    host.output("touch /etc/systemd/system/prometheus-node-exporter.service.d/celery-ops.conf")
    # Another address of the broker's metrics is written while they are off.
    host.output("rabbitmq-plugins disable --quiet rabbitmq_prometheus")
    host.output("sed -i s/15692/15693/ /etc/rabbitmq/conf.d/celery-ops-monitoring.conf")
    show(monitoring_rabbitmq_port=15693)
    assert host.output(exporter) != pid
    assert "127.0.0.1:15693" in host.output("ss -ltn")
    show()
    assert "127.0.0.1:15692" in host.output("ss -ltn") and ":15693" not in host.output("ss -ltn")


@LONG
def test_rules_and_metrics_are_what_prometheus_takes(host, prometheus):
    host.output("mkdir -p /tmp/kit/docs/monitoring /tmp/kit/tests/operate")
    host.copy(DOCS / "rules.yml", "/tmp/kit/docs/monitoring/rules.yml")
    host.copy(Path(__file__).with_name("rules_test.yml"), "/tmp/kit/tests/operate/rules_test.yml")
    promtool(host, "check", "rules", "/tmp/kit/docs/monitoring/rules.yml")
    promtool(host, "test", "rules", "/tmp/kit/tests/operate/rules_test.yml")
    host.output(f"promtool check metrics <{FILE}")


def test_every_rule_is_tested():
    names = set(re.findall(r"alert: (\w+)", (DOCS / "rules.yml").read_text()))
    assert set(re.findall(r"alertname: (\w+)", Path(__file__).with_name("rules_test.yml").read_text())) == names
    assert (DOCS / "rules.yml").read_text().count("runbook: ") == len(names)
    assert names == set(re.findall(r'"(CeleryOps\w+)"', Path(__file__).read_text())), "each fires on a host, too"


@LONG
def test_a_worker_that_is_down_is_an_alert_within_a_minute_and_what_waits_has_an_age(host, prometheus):
    """The bound is not less than the true age, and little more than it."""
    worker, wanted = host.program("worker-default").name, {"CeleryOpsProgramDown", "CeleryOpsNoConsumer"}
    host.output(f"supervisorctl stop {worker}")
    try:
        send(host, "loadArray")
        sent = float(host.output("date +%s.%N"))
        wait_until(lambda: wanted <= firing(host), 60, "the alerts")
        wait_until(lambda: metric(host, "celery_ops_queue_ready", queue=APP), 30, "the task that waits")
        written, bound, down = (
            metric(host, name, **labels)
            for name, labels in (
                ("celery_ops_watchdog_timestamp_seconds", {}),
                ("celery_ops_queue_oldest_seconds", {"queue": APP}),
                ("celery_ops_program_state", {"state": "down"}),
            )
        )
        assert down == 1
        # Seen empty, and the task sent before the command that sent it was over: a round, and a slow host.
        assert written - sent <= bound <= written - sent + 30
    finally:
        host.output(f"supervisorctl start {worker}")
    wait_until(lambda: not wanted & firing(host), 60, "the alerts' end")
    wait_until(lambda: metric(host, "celery_ops_queue_oldest_seconds", queue=APP) == 0, 40, "an empty queue's age")


def test_the_dashboards_queries_all_return_data(host, prometheus):
    send(host, *["loadArray"] * 2)
    dashboard = json.loads((DOCS / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = {
        f"{panel['title']}: {target['expr']}": target["expr"].replace("$app", APP).replace("$__rate_interval", "5m")
        for panel in panels
        for target in panel["targets"]
    }
    assert len(queries) > 20

    def empty() -> list[str]:
        return [title for title, found in zip(queries, ask(host, *queries.values()), strict=True) if not found]

    wait_until(lambda: not empty(), 60, "data for each query")
    assert ask(host, MARKS["Deploy"])[0]


@LONG
@pytest.mark.parametrize(
    ("alert", "fault", "cure"),
    [
        ("CeleryOpsWatchdogSilent", f"kill -STOP {WATCHDOG}", f"kill -CONT {WATCHDOG}"),
        ("CeleryOpsBrokerAway", "systemctl stop rabbitmq-server", "systemctl start rabbitmq-server"),
        ("CeleryOpsBrokerAlarm", "rabbitmqctl set_disk_free_limit 100000GB", "rabbitmqctl set_disk_free_limit 1GB"),
        (
            "CeleryOpsDeployLockStale",
            'mkdir -p /run/celery-ops/petct; echo \'{"id": "x", "renewed": 1}\' >/run/celery-ops/petct/deploy.lock',
            "rm /run/celery-ops/petct/deploy.lock",
        ),
        (
            "CeleryOpsCertificate",
            "mkdir -p /etc/rabbitmq/tls; openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=x "
            "-keyout /dev/null -out /etc/rabbitmq/tls/cert.pem 2>/dev/null; chmod -R a+rX /etc/rabbitmq/tls",
            "rm -r /etc/rabbitmq/tls",
        ),
        (
            "CeleryOpsDiskFull",
            "mount -o remount,size=20M /run && fallocate -l 18600K /run/filler",
            "rm /run/filler; mount -o remount,size=50% /run",
        ),
        # The watchdog continues it, again and again.
        (
            "CeleryOpsProgramUnhealthy",
            f"pid={WORKER}; (for n in $(seq 150); do kill -STOP $pid; sleep 0.2; done) >/dev/null 2>&1 &",
            "true",
        ),
        # What it has to do in time, the scheduler can't: it waits for the broker.
        ("CeleryOpsSchedulerSilent", "kill -STOP $(pidof beam.smp)", "kill -CONT $(pidof beam.smp)"),
    ],
)
def test_a_fault_is_an_alert_within_a_minute_and_clears(host, prometheus, alert, fault, cure):
    assert alert not in firing(host)
    host.output(fault)
    try:
        wait_until(lambda: alert in firing(host), 60, alert)
    finally:
        host.output(cure)
    wait_until(lambda: alert not in firing(host), 120, f"the end of {alert}")


@LONG
def test_dead_letters_and_failures_are_alerts(host, prometheus):
    send(host, "nobody.knows", *["loadArray"] * 6)
    wait_until(lambda: {"CeleryOpsDeadLetters", "CeleryOpsTasksFail"} <= firing(host), 60, "the alerts")
    host.output(f"rabbitmqctl -q -p {APP} purge_queue {APP}.dead")
    wait_until(lambda: "CeleryOpsDeadLetters" not in firing(host), 60, "the end of dead letters")
    wait_until(lambda: "CeleryOpsTasksFail" not in firing(host), 180, "the end of the failures")


@LONG
@pytest.mark.timeout(900)
def test_a_worker_that_stays_down_keeps_the_ticks_waiting(host, prometheus):
    """A tick is due every 15 s, so that the first alert comes within 110 s of the last one."""
    wanted = {"CeleryOpsTickStale", "CeleryOpsOldestTask"}
    assert not wanted & firing(host)
    worker = host.program("worker-default").name
    host.output(f"supervisorctl stop {worker}")
    try:
        last = metric(host, "celery_ops_tick_timestamp_seconds")
        wait_until(lambda: "CeleryOpsTickStale" in firing(host), 120, "the ticks' alert")
        assert float(host.output("date +%s.%N")) - last < 110
        wait_until(lambda: "CeleryOpsOldestTask" in firing(host), 320, "the oldest task's alert")
    finally:
        host.output(f"supervisorctl start {worker}")
    wait_until(lambda: not wanted & firing(host), 90, "the alerts' end")


@LONG
@pytest.mark.timeout(900)
def test_a_program_that_starts_again_and_again_is_an_alert(host, prometheus):
    """Its end takes ten minutes; here one."""
    for _ in range(3):
        before = metric(host, "celery_ops_program_restarts_total", program=f"{APP}-web")
        host.output(f"supervisorctl restart {host.program('web').name}")

        def counted(before: float | None = before) -> bool:
            return metric(host, "celery_ops_program_restarts_total", program=f"{APP}-web") == (before or 0) + 1

        wait_until(counted, 60, "the restart counted")
    wait_until(lambda: "CeleryOpsProgramRestarts" in firing(host), 60, "the alert")
    with shorter(host, "_restarts_total[10m]", "_restarts_total[1m]"):
        wait_until(lambda: "CeleryOpsProgramRestarts" not in firing(host), 120, "the end of the alert")


@LONG
def test_schedulers_of_which_none_leads_are_an_alert(host, prometheus):
    """The one here runs as one of several does, and somebody else's consumer is first in line for the lease."""
    name = host.program("scheduler").name
    conf, kept = f"/etc/supervisor/conf.d/{name}.conf", "/root/scheduler.conf"
    update = f"supervisorctl update {name}"
    host.output(f"setsid {host.in_release(f'python -c {shlex.quote(HOLD_LEASE)}')} >/dev/null 2>&1 &")
    try:
        wait_until(lambda: host.run(f"test -s {HOLDER}").rc == 0, 20, "the consumer in line")
        host.output(f"cp -p {conf} {kept}; sed -i 's#/venv/bin/celery #/bin/celery-ops-scheduler #' {conf}; {update}")
        wait_until(lambda: "CeleryOpsNoLeader" in firing(host), 60, "the alert")
        host.output(f"kill $(cat {HOLDER})")
        wait_until(lambda: "CeleryOpsNoLeader" not in firing(host), 60, "the end of the alert")
        assert metric(host, "celery_ops_scheduler_leader") == 1
    finally:
        host.run(f"kill $(cat {HOLDER}); rm -f {HOLDER}; mv {kept} {conf} && {update}")
        host.run(f"rabbitmqctl -q -p {APP} delete_queue {LEASE}")


@LONG
def test_a_deploy_that_failed_is_an_alert_until_one_succeeds(host, prometheus, tmp_path):
    broken = Variants(tmp_path).make("broken", {"petct/celery.py": "\nraise RuntimeError('no release')\n"})
    failed = play("deploy", celery_app_source=str(broken))
    assert failed.rc != 0, failed.text
    wait_until(lambda: "CeleryOpsDeployFailed" in firing(host), 60, "the alert")
    [mark] = ask(host, MARKS["Failed deploy"])[0]
    assert abs(float(mark["value"][1]) / 1000 - float(host.output("date +%s"))) < 120
    deployed()
    wait_until(lambda: "CeleryOpsDeployFailed" not in firing(host), 60, "the end of the alert")


@LONG
def test_a_pause_that_lasts_is_an_alert_and_what_it_causes_is_none(host, prometheus):
    """Its hour is a minute here; nothing consumes meanwhile, a task waits, no tick runs."""
    try:
        with shorter(host, "for: 1h", "for: 1m"):
            paused = play("pause", celery_app_pause_queue=APP)
            assert paused.rc == 0, paused.text
            send(host, "loadArray")
            host.await_consumers(0)
            wait_until(lambda: "CeleryOpsPaused" in firing(host), 110, "the alert")
            assert not firing(host) & {"CeleryOpsNoConsumer", "CeleryOpsOldestTask", "CeleryOpsTickStale"}
    finally:
        play("resume")
    wait_until(lambda: "CeleryOpsPaused" not in firing(host), 60, "the end of the alert")


@LONG
def test_with_the_broker_down_the_file_is_written(host):
    host.output("systemctl stop rabbitmq-server")
    try:
        wait_until(lambda: metric(host, "celery_ops_broker_up") == 0, 60, "the broker away")
        stamp = metric(host, "celery_ops_watchdog_timestamp_seconds")
        wait_until(lambda: metric(host, "celery_ops_watchdog_timestamp_seconds") > stamp, 30, "the next file")
    finally:
        host.output("systemctl start rabbitmq-server")
    wait_until(lambda: metric(host, "celery_ops_broker_up") == 1, 60, "the broker back")
