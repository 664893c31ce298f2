"""`doctor.yml` on a real host: nothing fails while it works, and each of these faults is found."""

from __future__ import annotations

import os
import re

import pytest
from support.control import EPHEMERAL, play

WORKER = "/etc/supervisor/conf.d/petct-worker-default-*.conf"
LISTENER = "/etc/supervisor/conf.d/petct-web-listener-*.conf"
EXTRA = "/etc/supervisor/conf.d/petct-extra-0badcafe.conf"
DROPIN = "/run/systemd/system/supervisor.service.d"
CHANGE = f"cp -p {WORKER} /root/worker.conf; sed -i"
LISTEN = (
    "setsid python3 -c 'import socket, time; s = socket.create_server((\"0.0.0.0\", {0})); time.sleep(300)' "
    ">/dev/null 2>&1 & echo $! > /run/listen-{0}.pid"
)
BRIEF = 'rabbit_amqqueue:declare(rabbit_misc:r(<<"petct">>, queue, <<"brief">>), false, false, [], none, <<"root">>).'
DEAF = "kill $(cat /run/listen-{0}.pid); rm /run/listen-{0}.pid"
FAULTS = {
    "rabbitmq-guest": (
        "rabbitmqctl -q add_user guest guest",
        "rabbitmqctl -q delete_user guest",
    ),
    "rabbitmq-default-vhost": (
        "rabbitmqctl -q eval 'rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"lost\">>), true, false, [], "
        "none, <<\"root\">>).'",
        "rabbitmqctl -q delete_queue lost",
    ),
    "rabbitmq-user": (
        "rabbitmqctl -q set_user_tags petct administrator",
        "rabbitmqctl -q set_user_tags petct",
    ),
    "times-consumer-timeout": (
        "rabbitmqctl -q eval 'application:set_env(rabbit, consumer_timeout, 60000).'",
        "rabbitmqctl -q eval 'application:set_env(rabbit, consumer_timeout, 86400000).'",
    ),
    "files-environment": ("chmod o+r $(readlink -f /etc/petct/env)", "chmod o-r $(readlink -f /etc/petct/env)"),
    "files-records": ("chmod 755 /srv/petct/deployments", "chmod 700 /srv/petct/deployments"),
    "files-conf-d": ("chmod 777 /etc/supervisor/conf.d", "chmod 755 /etc/supervisor/conf.d"),
    "files-secrets-in-conf": (
        "echo '; amqp://petct:secret@127.0.0.1/petct' >> $(ls /etc/supervisor/conf.d/petct-watchdog-*.conf)",
        "sed -i '/amqp:/d' $(ls /etc/supervisor/conf.d/petct-watchdog-*.conf)",
    ),
    "programs-running": ("supervisorctl stop $(cd /etc/supervisor/conf.d; ls petct-web-[0-9a-f]*.conf | cut -d. -f1)",
                         "supervisorctl start $(cd /etc/supervisor/conf.d; ls petct-web-[0-9a-f]*.conf | cut -d. -f1)"),
    "pidfiles-stale": ("echo 4000000 > /run/petct/gone.pid", "rm /run/petct/gone.pid"),
    "orphans": (
        "cp /bin/sleep /tmp/petct-orphan; setsid runuser -u petct -- setsid -f /tmp/petct-orphan 300; sleep 0.1",
        "pkill -x petct-orphan; rm /tmp/petct-orphan",
    ),
    "supervisor-socket": ("chmod 777 /var/run/supervisor.sock", "chmod 700 /var/run/supervisor.sock"),
    "reboot-pending": ("touch /run/reboot-required", "rm /run/reboot-required"),
    "files-etc": ("chmod o+rx /etc/petct", "chmod o= /etc/petct"),
    "files-logs": ("chmod o+rx /var/log/petct", "chmod o= /var/log/petct"),
    "files-release": ("chown petct /srv/petct/releases", "chown root /srv/petct/releases"),
    "files-command": ("chmod o+w /usr/local/bin/petct", "chmod o-w /usr/local/bin/petct"),
    "files-redis": ("chmod o+r /var/lib/celery-ops/redis-admin", "chmod o= /var/lib/celery-ops/redis-admin"),
    "certificates": (
        "mkdir -p /etc/rabbitmq/tls; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3 "
        "-subj /CN=x -keyout /etc/rabbitmq/tls/key.pem -out /etc/rabbitmq/tls/cert.pem 2>/dev/null",
        "rm -r /etc/rabbitmq/tls",
    ),
    "files-keys": ("chmod 644 /etc/rabbitmq/tls/key.pem", "true"),
    "pidfiles-of-others": ("echo 1 > /run/petct/other.pid", "rm /run/petct/other.pid"),
    "log-growth": ("truncate -s 3G /var/log/petct/huge.log", "rm /var/log/petct/huge.log"),
    "times-stop": (f"{CHANGE} s/^stopwaitsecs=.*/stopwaitsecs=1/ {WORKER}", f"mv /root/worker.conf {WORKER}"),
    "log-rotation": (f"sed -i s/^stdout_logfile_maxbytes=.*/stdout_logfile_maxbytes=0/ {WORKER}", "true"),
    "times-soft-limit": (f"sed -i -E 's/--soft-time-limit [0-9]+/--soft-time-limit 9999/' {WORKER}", "true"),
    "programs-loaded": (
        f"printf '[program:petct-extra-0badcafe]\ncommand=/bin/true\n' > {EXTRA}",
        f"rm {EXTRA}",
    ),
    "programs-recorded": ("true", "true"),
    "programs-surplus": (f"mv {LISTENER} /root/", "mv /root/petct-web-listener-*.conf /etc/supervisor/conf.d/"),
    "supervisor-inet": (
        "cp -p /etc/supervisor/supervisord.conf /root/; "
        "printf '\n[inet_http_server]\nport=0.0.0.0:9001\n' >> /etc/supervisor/supervisord.conf",
        "mv /root/supervisord.conf /etc/supervisor/",
    ),
    "supervisor-boot": ("systemctl -q disable supervisor 2>/dev/null", "systemctl -q enable supervisor 2>/dev/null"),
    "times-unit": (
        f"mkdir -p {DROPIN}; printf '[Service]\nTimeoutStopSec=5\n' > {DROPIN}/zz.conf; systemctl daemon-reload",
        f"rm -r {DROPIN}; systemctl daemon-reload",
    ),
    "redis-default-user": (
        "cp -p /etc/redis/celery-ops.acl /root/; sed -i '/^user default /d' /etc/redis/celery-ops.acl",
        "mv /root/celery-ops.acl /etc/redis/",
    ),
    "needrestart": (
        "mkdir -p /etc/needrestart/conf.d; echo '$nrconf{restart} = '\"'a';\" > /etc/needrestart/conf.d/doctor.conf",
        "rm /etc/needrestart/conf.d/doctor.conf; rmdir --ignore-fail-on-non-empty -p /etc/needrestart/conf.d",
    ),
    "upgrades-reboot": (
        "install -m 0755 /bin/true /usr/local/bin/unattended-upgrade; "
        "printf 'APT::Periodic::Unattended-Upgrade \"1\";\nUnattended-Upgrade::Automatic-Reboot \"true\";\n' "
        "> /etc/apt/apt.conf.d/99doctor",
        "rm /usr/local/bin/unattended-upgrade /etc/apt/apt.conf.d/99doctor",
    ),
    "debian-supported": (
        "cp -p /etc/debian_version /root/; echo 11.9 > /etc/debian_version",
        "mv /root/debian_version /etc/",
    ),
    "supervisor-open": (f"{LISTEN.format(9001)}; {LISTEN.format(15672)}", f"{DEAF.format(9001)}; {DEAF.format(15672)}"),
    "rabbitmq-management-open": ("true", "true"),
    # The last to be made and the first to end: another file system over the directory.
    "disk-inodes": (
        "mount -t tmpfs -o size=1M,nr_inodes=64 doctor /tmp; (cd /tmp; touch $(seq 80)) 2>/dev/null || true",
        "umount /tmp",
    ),
    "disk-space": ("head -c 2M /dev/zero > /tmp/1 2>/dev/null || true", "true"),
    "disk-writable": ("mount -o remount,ro /tmp", "true"),
}  # fmt: skip
"""By check: a command that makes the fault, and one that ends it. `true` where another one's makes it, too."""
OF_CONTROL = {"secrets-mode", "secrets-length", "secrets-age"}
ALL = os.environ.get("CELERY_OPS_CHAOS") == "all"
if ALL:
    FAULTS |= {
        "rabbitmq-disk-limit": ("rabbitmqctl -q set_disk_free_limit 50MB", "rabbitmqctl -q set_disk_free_limit 1GB"),
        "rabbitmq-memory-watermark": (
            "rabbitmqctl -q set_vm_memory_high_watermark 0.95",
            "rabbitmqctl -q set_vm_memory_high_watermark 0.4",
        ),
        "rabbitmq-permissions": (
            "rabbitmqctl -q set_permissions -p / petct '^$' '^$' '^$'",
            "rabbitmqctl -q clear_permissions -p / petct",
        ),
        "rabbitmq-mirrored-queues": (
            """rabbitmqctl -q set_policy -p petct ha '^none$' '{"ha-mode": "all"}'""",
            "rabbitmqctl -q clear_policy -p petct ha",
        ),
        "rabbitmq-queue-types": (f"rabbitmqctl -q eval '{BRIEF}'", "rabbitmqctl -q -p petct delete_queue brief"),
        "rabbitmq-durable": ("true", "true"),
    }


@pytest.fixture
def faults(host):
    """All of them at once: a run of the doctor takes as long as four tests of others."""
    secret = EPHEMERAL / "secrets/petct_doctor"
    secret.write_text("short")
    secret.chmod(0o644)
    os.utime(secret, (0, 0))
    try:
        host.output("set -ex\n" + "\n".join(make for make, _ in FAULTS.values()))
        yield
    finally:
        host.run("\n".join(end for _, end in reversed(FAULTS.values())))
        secret.unlink()


def found(text: str) -> set[str]:
    """The ids of the checks that warn or fail."""
    return set(re.findall(r"(?:FAIL|WARN)  ([a-z-]+):", text))


def test_a_host_that_works_has_no_failure(host):
    done = play("doctor", celery_app_doctor_show="all")
    assert done.rc == 0, done.text
    assert done.changed == {host.name: 0}
    assert "FAIL" not in done.text
    assert int(re.search(r"(\d+) checks", done.text)[1]) >= 40
    assert int(re.search(r"(\d+) pass", done.text)[1]) >= 40


def test_it_finds_what_is_wrong_and_says_what_to_type(faults, host):
    done = play("doctor")
    assert done.rc != 0
    assert {*FAULTS, *OF_CONTROL} <= found(done.text), {*FAULTS, *OF_CONTROL} - found(done.text)
    assert done.text.index("FAIL  ") < done.text.index("WARN  ")
    assert "rabbitmqctl delete_user guest" in done.words
    accepted = play("doctor", celery_app_doctor_accept=sorted(found(done.text)), options=["--check"])
    assert accepted.rc == 0, accepted.text
    assert "FAIL" not in accepted.text
