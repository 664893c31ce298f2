"""Who can reach, read and change what."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from system import APP, CURRENT, PORT, System

LOOPBACK = re.compile(r"^(127\.|\[::1\]|\[::ffff:127\.)")
READABLE_PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"


@pytest.fixture
def patterns(system, secrets):
    """A file on the host that holds the secrets for `grep -f`, so that they are on no command line."""
    file = "/root/.secrets-to-look-for"
    write = ("docker", "exec", "-i", system.name, "sh", "-c", f"umask 077; cat > {file}")
    subprocess.run(write, input="\n".join(secrets.values()), text=True, check=True)
    yield file
    system.output(f"rm {file}")


def found_in(system: System, patterns: str, files: str) -> list[str]:
    """Returns which of the files (as a shell glob) hold a secret."""
    return system.run(f"grep -a -l -s -F -f {patterns} -- {files}").stdout.split()


def test_only_the_web_program_is_reached_from_outside(system):
    listening = [line.split()[3] for line in system.output("ss -Hltn").splitlines()]
    ports = {address.rpartition(":")[2] for address in listening}
    assert {"5672", "6379", str(PORT)} <= ports
    assert [a for a in listening if not LOOPBACK.match(a)] == [f"0.0.0.0:{PORT}"]


def test_guest_is_gone(system):
    users = system.output("rabbitmqctl -q list_users").split("\n")
    assert not [user for user in users if user.startswith("guest")]
    assert system.run("rabbitmqctl authenticate_user guest guest").rc != 0


def test_the_applications_broker_user_is_confined_to_its_vhost(system):
    assert system.output(f"rabbitmqctl -q list_user_permissions {APP}").splitlines()[-1].split()[0] == APP
    assert f"{APP}\t[]" in system.output("rabbitmqctl -q list_users")


def test_anonymous_redis_is_refused(system):
    assert "NOAUTH" in system.output("redis-cli -h 127.0.0.1 ping 2>&1")


def test_only_root_talks_to_supervisord(system):
    socket = system.host.file("/run/supervisor.sock")
    assert (socket.user, socket.mode) == ("root", 0o700)
    assert system.run(f"runuser -u {APP} -- supervisorctl status").rc != 0
    assert "inet_http_server" not in system.output("cat /etc/supervisor/supervisord.conf")


def test_only_root_and_the_application_read_its_environment(system):
    file = system.host.file(system.output(f"readlink -f /etc/{APP}/env"))
    assert (file.user, file.group, file.mode) == ("root", APP, 0o640)
    assert system.run(f"runuser -u nobody -- cat /etc/{APP}/env").rc != 0


def test_the_application_cannot_change_its_own_release(system):
    find = f"find -L {CURRENT}/ /srv/{APP}/releases /etc/{APP} /etc/supervisor -writable"
    assert system.output(f"runuser -u {APP} -- {find} 2>/dev/null; true") == ""


def test_programs_run_as_the_application(system):
    for program in system.programs():
        assert system.output(f"ps -o user= -p {program.pid}") == APP, program.name


def test_no_secret_is_on_a_command_line(system, patterns):
    assert found_in(system, patterns, "/proc/[0-9]*/cmdline") == []


def test_no_secret_is_in_a_log_or_conf(system, patterns):
    assert found_in(system, patterns, "-r /var/log /etc/supervisor") == []
    if system.has_systemd:
        assert system.run(f"journalctl --no-pager | grep -F -f {patterns}").stdout == ""


def test_no_secret_is_in_a_file_that_anyone_may_read(system, patterns):
    find = f"runuser -u nobody -- find {READABLE_PLACES} -xdev -type f -readable -print0 2>/dev/null"
    search = f"{find} | xargs -0 -r grep -a -l -s -F -f {patterns}"
    assert system.run(search).stdout.split() == []


def test_no_secret_was_shown_by_ansible(secrets):
    log = os.environ.get("CELERY_OPS_MOLECULE_LOG")
    if not log:
        pytest.skip("CELERY_OPS_MOLECULE_LOG names no log of this run; `make test` does")
    text = Path(log).read_text(errors="replace")
    assert [name for name, value in secrets.items() if value in text] == []


def test_the_search_for_secrets_finds_them_where_they_belong(system, patterns):
    assert found_in(system, patterns, f"/etc/{APP}/env") == [f"/etc/{APP}/env"]
