"""A result store of several hosts: its primary is frozen, a replica takes its place, and no result is missing."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest
from support.control import EPHEMERAL, play
from support.host import APP, CURRENT, scenario_hosts
from support.long import LONG

TAKEOVER, REJOIN = 30, 90  # seconds
PASSWORD = EPHEMERAL / "secrets/result_store_replication_password"
SINCE = "systemctl show --property=ActiveEnterTimestamp redis-server"
LOAD = f"""
import json, sys, time
from celery_ops.probe import load_app
import celery_ops.tasks, celery_ops.ledger
app = load_app({APP!r})
task, sent, patience = app.tasks["celery_ops.ledger"], [], time.monotonic() + 200
for number in range(int(sys.argv[1])):
    sent.append(task.apply_async(args=["store", number, 0.0], queue={APP!r}, ignore_result=False))
    time.sleep(0.05)
missing = set(sent)
while missing and time.monotonic() < patience:
    missing = {{each for each in missing if not each.ready()}}
    time.sleep(0.5)
print(json.dumps([len(sent), len(missing)]))
"""


@pytest.fixture(scope="module")
def stores():
    watched = "grep -qi '^sentinel monitor celery-ops ' /etc/redis/sentinel.conf"
    found = [host for host in scenario_hosts() if host.run(watched).rc == 0]
    if len(found) < 3:
        pytest.skip("the scenario's result store is one host: celery_app_result_store_sentinel is not set")
    return found


@contextmanager
def load(count=400):
    """Send tasks whose results are kept meanwhile; the list has afterwards how many were sent, and are missing."""
    said, numbers = [], []
    worker = next(host for host in scenario_hosts() if host.run(f"ls -d {CURRENT}").rc == 0)
    environment = f"set -a; . /etc/{APP}/env; cd {CURRENT}/app; PYTHONPATH={CURRENT}/runtime"
    command = f"runuser -u {APP} -- sh -c '{environment} exec {CURRENT}/venv/bin/python - {count}'"
    thread = threading.Thread(target=lambda: said.append(worker.run(command, stdin=LOAD)))
    thread.start()
    yield numbers
    thread.join(240)
    [done] = said
    assert done.rc == 0, done.stderr
    numbers += json.loads(done.stdout.splitlines()[-1])


def role(host):
    """Return what Redis says that it is: master, slave, or nothing while it does not answer."""
    asked = (
        "cd /etc/redis/celery-ops-tls; REDISCLI_AUTH=$(cat /var/lib/celery-ops/redis-admin) timeout 3 redis-cli --tls "
        "--cacert ca.pem --cert cert.pem --key key.pem --user celery-ops --no-auth-warning INFO replication"
    )
    lines = dict(line.strip().partition(":")[::2] for line in host.run(asked).stdout.splitlines())
    return lines.get("role", "") if lines.get("master_link_status", "up") == "up" else "joins"


def wait(seconds, what):
    """Wait until something is so; return the seconds that it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.5)
    return time.monotonic() - began


def test_one_host_is_the_primary_and_the_others_follow(stores):
    assert sorted(map(role, stores)) == ["master", *["slave"] * (len(stores) - 1)]


@LONG
@pytest.mark.timeout(1200)
def test_the_password_between_the_hosts_is_rotated_and_the_primary_stays(stores):
    before, since = PASSWORD.read_text().strip(), {host: host.output(SINCE) for host in stores}
    roles = {host: role(host) for host in stores}
    # As the broker's old user, which the rotation removes at the end.
    with load(800) as said:
        run = play("rotate_secrets")
    assert run.rc == 0, run.text[-4000:]
    assert said == [800, 0]
    now = PASSWORD.read_text().strip()
    assert now != before
    assert [value for value in (before, now) if value in run.text] == []
    assert not PASSWORD.with_name(f"{PASSWORD.name}.old").exists()
    for host in stores:
        assert host.run("grep -rlF -f - /etc/redis", stdin=before).stdout == ""
        names = host.output("grep -rlF -f - /etc/redis", stdin=now)
        assert "sentinel.conf" in names
        assert host.run("grep ^user.celery-ops-replication /etc/redis/*.acl").stdout.count("#") == 2, "one in each file"
    assert {host: role(host) for host in stores} == roles
    assert {host: host.output(SINCE) for host in stores} == since, "no Redis was restarted"
    again = play("site", options=["--tags", "result_store"])
    assert sum(again.changed.values()) == 0, again.text[-3000:]
    # Links that are new, with the new password.
    replica = next(host for host in stores if roles[host] == "slave")
    assert replica.run("systemctl restart redis-server redis-sentinel").rc == 0
    wait(REJOIN, lambda: {host: role(host) for host in stores} == roles)


@pytest.mark.timeout(420)
def test_a_frozen_primary_is_replaced_and_no_result_is_missing(stores):
    [primary] = [host for host in stores if role(host) == "master"]
    others = [host for host in stores if host is not primary]
    with load() as said:
        try:
            assert primary.run("sleep 5; pkill -STOP -x redis-server").rc == 0
            wait(TAKEOVER, lambda: "master" in map(role, others))
        finally:
            primary.run("pkill -CONT -x redis-server")
        wait(REJOIN, lambda: sorted(map(role, stores)) == ["master", *["slave"] * len(others)])
    assert said == [400, 0]
    assert role(primary) == "slave"
