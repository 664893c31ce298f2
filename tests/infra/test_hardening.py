"""What is closed: to the application, to other users of the host, and without the password."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.control import play
from support.host import APP, CURRENT, Host

SECURITY = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text()

# Ways to log in at the broker with nothing, with guest, with another's or a wrong password; prints who was let in.
KNOCK = """
import os
from urllib.parse import urlsplit
import amqp
from amqp.sasl import PLAIN, RAW
url = urlsplit(os.environ["CELERY_BROKER_URL"])
ways = {
    "anonymous": RAW(b"ANONYMOUS", b""),
    "nobody": PLAIN("", ""),
    "guest": PLAIN("guest", "guest"),
    "wrong": PLAIN(url.username, "wrong"),
    "empty": PLAIN(url.username, ""),
    "right": PLAIN(url.username, url.password),
}
for name, way in ways.items():
    try:
        amqp.Connection(f"{url.hostname}:{url.port}", authentication=way, virtual_host=url.path[1:]).connect()
        print(name)
    except (amqp.AMQPError, OSError):
        pass
"""


def status_of(host: Host, pid: int) -> dict[str, str]:
    """/proc/<pid>/status."""
    return dict(line.split(":\t", 1) for line in host.output(f"cat /proc/{pid}/status").splitlines())


def test_the_broker_lets_in_who_has_the_password_and_nobody_else(host):
    assert host.output(host.in_release(f"python -c '{KNOCK}'")).split() == ["right"]


@pytest.mark.parametrize(
    ("login", "refusal"),
    [
        ("", "NOAUTH"),
        (f"--user {APP} --pass wrong", "WRONGPASS"),
        ("--user default --pass ''", "WRONGPASS|NOAUTH"),
        ("--user nobody --pass nobody", "WRONGPASS"),
    ],
    ids=["anonymous", "wrong", "default", "unknown"],
)
def test_redis_lets_in_nobody_without_the_password(host, login, refusal):
    said = host.run(f"redis-cli --no-auth-warning -h 127.0.0.1 {login} get celery 2>&1").stdout
    assert re.search(refusal, said), said


@pytest.mark.parametrize("command", ["CONFIG GET dir", "FLUSHALL", "ACL LIST", "SHUTDOWN", "SELECT 2"])
def test_the_application_cannot_administer_redis(host, command):
    ask = (
        "python -c 'import os, sys, redis; "
        'redis.Redis.from_url(os.environ["CELERY_RESULT_BACKEND"]).execute_command(*sys.argv[1:])\' '
    )
    refused = host.run(host.in_release(ask + command.replace("*", "'*'")))
    assert "no permissions" in refused.stderr, refused.stdout + refused.stderr


def test_celery_takes_json_and_arrays_only(host):
    show = "from petct.celery import app; import json; c = app.conf; print(json.dumps([list(c.accept_content),"
    show += " list(c.result_accept_content), c.task_serializer, c.result_serializer, c.event_serializer]))"
    found = json.loads(host.output(host.in_release(f"python -c '{show}'")).splitlines()[-1])
    assert found == [["json", "ndarray"], ["json", "ndarray"], "json", "ndarray", "json"]


@pytest.mark.parametrize(
    "path",
    [
        f"{CURRENT}/app/petct/celery.py",
        f"{CURRENT}/venv/bin/celery",
        f"{CURRENT}/runtime/celery_ops/settings.py",
        f"{CURRENT}/bin/celery-ops-guard",
        f"$(readlink -f {CURRENT}/venv)/lib/sitecustomize.py",
        f"/srv/{APP}/new",
        f"/srv/{APP}/releases/new",
        f"/srv/{APP}/venvs/new",
        f"/srv/{APP}/listeners/new",
        f"$(readlink -f /etc/{APP}/env)",
        f"/etc/{APP}/new",
        f"/var/log/{APP}/new",
        f"/var/log/{APP}/deploys.log",
        "/etc/supervisor/conf.d/new.conf",
        "/etc/supervisor/supervisord.conf",
        "/etc/redis/celery-ops.acl",
        "/etc/rabbitmq/conf.d/90-celery-ops.conf",
    ],
)
def test_the_application_cannot_write(host, path):
    path = path if "$(" not in path else host.output(f"echo {path}")
    tried = host.run(f"runuser -u {APP} -- sh -c 'echo >> {path}'")
    assert "Permission denied" in tried.stderr, f"{path}: {tried}"


def test_the_application_can_write_what_is_its_own(host):
    host.output(f"runuser -u {APP} -- sh -c 'echo > /srv/{APP}/shared/mine && rm /srv/{APP}/shared/mine'")


def test_other_users_cannot_enter_the_applications_directories(host):
    for directory in (f"/etc/{APP}", f"/srv/{APP}/shared", f"/var/log/{APP}", f"/var/lib/{APP}"):
        assert host.run(f"runuser -u nobody -- ls {directory}").rc != 0, directory


def test_what_the_kits_modules_were_compiled_to_is_there_for_root_alone(host):
    play("status", host)  # a restart of the host has emptied it
    store = host.testinfra.file("/run/celery-ops/.compiled")
    assert (store.user, store.mode) == ("root", 0o700)
    assert len(store.listdir()) > 50


def test_every_program_is_in_the_sandbox(host):
    if not host.has_systemd:
        pytest.skip("without systemd there is no sandbox")
    supervisord = int(host.output("systemctl show --property MainPID --value supervisor"))
    for pid in (supervisord, *(program.pid for program in host.programs())):
        status = status_of(host, pid)
        assert status["NoNewPrivs"].strip() == "1", status["Name"]
        assert status["Seccomp"].strip() == "2", status["Name"]
        assert not int(status["CapBnd"], 16) & 1 << 21, f"{status['Name']} could get CAP_SYS_ADMIN"
    mounts = host.output(f"cat /proc/{supervisord}/mountinfo").splitlines()
    read_only = {line.split()[4] for line in mounts if line.split()[5].startswith("ro")}
    assert {"/usr", "/etc", "/proc/sys", "/sys/fs/cgroup"} <= read_only


def test_redis_keeps_all_of_its_sandbox_that_the_host_can_do(host):
    if not host.has_systemd:
        pytest.skip("without systemd there is no sandbox")
    assert host.output("systemctl is-active redis-server") == "active"
    # A container may be unable to make user namespaces; the machine below it decides.
    dropin = host.run("grep = /etc/systemd/system/redis-server.service.d/sandbox-off.conf").stdout.split()
    assert dropin in ([], ["PrivateUsers=no"])
    assert host.output("systemctl show --property ProtectSystem --value redis-server") == "strict"


def test_the_sandbox_is_as_tight_as_recorded(host):
    if not host.has_systemd:
        pytest.skip("without systemd there is no sandbox")
    said = host.output("systemd-analyze security supervisor.service --no-pager").splitlines()[-1]
    exposure = float(re.search(r"supervisor.service: ([0-9.]+)", said)[1])
    recorded = float(re.search(r"exposure of at most \*\*([0-9.]+)\*\*", SECURITY)[1])
    assert exposure <= recorded, said
