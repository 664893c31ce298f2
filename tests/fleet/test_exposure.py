"""Who reaches broker and result store of a fleet, and what they have to show."""

from __future__ import annotations

import subprocess

import pytest
from support.host import APP

TLS = {"RabbitMQ": 5671, "Redis": 6379}
CONNECT = "import socket; socket.create_connection(({host!r}, {port}), 5)"
VERIFY = (
    "import socket, ssl; ssl.create_default_context(cafile={ca}).wrap_socket("
    "socket.create_connection(({host!r}, {port}), 5), server_hostname={name!r})"
)
ASK = """
import socket, ssl
c = ssl.create_default_context(cafile="/etc/{app}/ca.pem")
{shows}
s = c.wrap_socket(socket.create_connection(({host!r}, {port}), 5), server_hostname={host!r})
s.sendall({said!r})
assert s.recv(8)
"""


def python(host, code):
    """Run Python on a host as the application; return whether it went well, and what it said."""
    done = host.run(f"runuser -u {APP} -- python3 - 2>&1", stdin=code)
    return done.rc == 0, done.stdout


@pytest.fixture(scope="module")
def outsider(hub):
    """Returns how a host that is not in the inventory, in the same network, does what Python code says."""
    inspect = (
        "docker",
        "inspect",
        "--format",
        "{{.Config.Image}} {{range $n, $_ := .NetworkSettings.Networks}}{{$n}} {{end}}",
    )
    image, network = subprocess.run([*inspect, hub.name], capture_output=True, text=True, check=True).stdout.split()[:2]

    def run(code):
        words = ["docker", "run", "--rm", "--network", network, "--entrypoint", "python3", image, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True)
        return done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize(("service", "port"), TLS.items())
def test_a_host_of_the_inventory_verifies_certificate_and_name(hub, workers, service, port):
    ca = repr(f"/etc/{APP}/ca.pem")
    for host in workers:
        well, said = python(host, VERIFY.format(ca=ca, host=hub.address, port=port, name=hub.address))
        assert well, said
        well, said = python(host, VERIFY.format(ca=ca, host=hub.address, port=port, name="elsewhere"))
        assert not well
        assert "CERTIFICATE_VERIFY_FAILED" in said, f"{service} by another name"
        well, said = python(host, VERIFY.format(ca=None, host=hub.address, port=port, name=hub.address))
        assert not well
        assert "CERTIFICATE_VERIFY_FAILED" in said, f"{service} without its CA"


@pytest.mark.parametrize(("service", "said"), [("RabbitMQ", b"AMQP\x00\x00\x09\x01"), ("Redis", b"PING\r\n")])
def test_they_answer_nobody_who_shows_no_certificate(hub, workers, service, said):
    shows = f"c.load_cert_chain('/etc/{APP}/client.pem')"
    for host in workers:
        given = {"app": APP, "host": hub.address, "port": TLS[service], "said": said}
        well, answer = python(host, ASK.format(shows=shows, **given))
        assert well, answer
        # Nothing is sent: it may have hung up by then.
        well, answer = python(host, ASK.format(shows="", **given | {"said": b""}))
        assert not well
        assert "CERTIFICATE_REQUIRED" in answer, answer


def test_programs_use_tls_and_verify(hub, workers):
    for host in workers:
        environment = host.ask(f"cat /etc/{APP}/env")
        assert "CELERY_BROKER_URL=amqps://" in environment.replace("'", "")
        assert "ssl_cert_reqs=required" in environment
        assert host.ask("ss -Htn state established dport = :5671"), "it is connected"
    shown = hub.output("rabbitmqctl -q list_connections ssl peer_host ssl_protocol")
    remote = [
        line.split() for line in shown.splitlines() if line.split()[1] != "127.0.0.1" and "ssl" not in line.split()
    ]
    assert remote
    assert {words[0] for words in remote} == {"true"}, shown
    assert {words[2] for words in remote} <= {"tlsv1.3", "tlsv1.2"}, shown


def test_nobody_else_reaches_them(hub, outsider):
    for name, port in TLS.items():
        well, said = outsider(CONNECT.format(host=hub.name, port=port))
        assert not well, name
        assert "refused" in said, said
    well, said = outsider(CONNECT.format(host=hub.name, port=8000))
    assert well, f"the page is for everybody: {said}"


def test_the_rules_are_a_table_of_their_own_and_stay_after_the_hosts_own_are_loaded_again(hub, outsider):
    assert "5671" in hub.output("nft list table inet celery_ops")
    hub.output("nft add table inet of_somebody_else")
    try:
        hub.output("systemctl restart celery-ops-firewall")
        assert "of_somebody_else" in hub.output("nft list tables")
    finally:
        hub.output("nft delete table inet of_somebody_else")
    assert not outsider(CONNECT.format(host=hub.name, port=5671))[0]


def test_the_plain_port_is_on_loopback_alone(hub, workers):
    listening = [line.split()[3] for line in hub.output("ss -Hltn").splitlines()]
    assert "127.0.0.1:5672" in listening
    assert [each for each in listening if each.endswith(":5672") and not each.startswith("127.")] == []
    plain = (
        "import socket; s = socket.create_connection(({!r}, 6379), 5); s.settimeout(5); s.sendall(b'PING\\r\\n'); "
        "assert not s.recv(9)"
    )
    well, said = python(workers[0], plain.format(hub.address))
    assert well or "reset" in said, "Redis answers nobody without TLS"


def test_the_keys_are_for_the_services_alone(hub):
    for file, group in (("/etc/rabbitmq/tls/key.pem", "rabbitmq"), ("/etc/redis/celery-ops-tls/key.pem", "redis")):
        found = hub.testinfra.file(file)
        assert (found.user, found.group, found.mode) == ("root", group, 0o640)
    shown = hub.testinfra.file(f"/etc/{APP}/client.pem")
    assert (shown.user, shown.group, shown.mode) == ("root", APP, 0o640)


def test_the_status_shows_when_they_end(hub):
    from support.control import play

    said = play("status").words
    assert "certificates: /etc/rabbitmq/tls/cert.pem until 20" in said
