"""`doctor.yml` on a real host: nothing fails while it works, and each of these faults is found."""

from __future__ import annotations

import re

import pytest
from support.control import play

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
}  # fmt: skip
"""By check: a command that makes the fault, and one that ends it."""


@pytest.fixture
def faults(host):
    """All of them at once: a run of the doctor takes as long as four tests of others."""
    made = []
    try:
        for make, end in FAULTS.values():
            made.append(end)
            host.output(make)
        yield
    finally:
        for end in made:
            host.run(end)


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
    assert set(FAULTS) <= found(done.text), set(FAULTS) - found(done.text)
    assert done.text.index("FAIL  ") < done.text.index("WARN  ")
    assert "rabbitmqctl delete_user guest" in done.words
    accepted = play("doctor", celery_app_doctor_accept=sorted(found(done.text)), options=["--check"])
    assert accepted.rc == 0, accepted.text
    assert "FAIL" not in accepted.text
