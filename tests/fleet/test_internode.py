"""The brokers of the cluster speak TLS with each other, and take nobody without a certificate of their CA."""

from __future__ import annotations

import subprocess

import pytest
from support.control import play

TLS = "/etc/rabbitmq/tls"
OPTIONS = "/etc/rabbitmq/celery-ops-internode.config"
PING = (
    "cd /var/lib/rabbitmq && runuser -u rabbitmq -- env HOME=/var/lib/rabbitmq "
    "ERL_INETRC=/etc/rabbitmq/celery-ops.inetrc timeout 60 erl -noinput -hidden -sname of-the-test {options} -eval "
    '\'io:format("~p~n", [net_adm:ping(list_to_atom("rabbit@{node}"))]), halt().\''
)


def ping(host, node, options=""):
    """What Erlang on a host, with the cluster's cookie, hears of a node: pong or pang."""
    # Erlang's log says why, before or after the answer.
    lines = host.output(PING.format(node=node.name, options=options)).splitlines()
    return " ".join(line for line in lines if line in ("pong", "pang"))


def handshake(host, node, *options):
    """What openssl on a host says of the port between the nodes."""
    # In TLS 1.2 the server's answer to a certificate is a part of the handshake.
    words = " ".join(("openssl s_client -tls1_2 -connect", f"{node.address}:25672", f"-CAfile {TLS}/ca.pem", *options))
    return host.ask(f"timeout 30 {words} 2>&1 < /dev/null")


@pytest.fixture(scope="module")
def other_ca(brokers, tmp_path_factory):
    """Options for openssl and for Erlang with a certificate that another CA has signed, on the second broker."""
    directory = tmp_path_factory.mktemp("other-ca")
    subject = ["-subj", "/CN=celery-ops-rabbitmq", "-addext", "subjectAltName=DNS:celery-ops-rabbitmq"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", *subject],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    host, there = brokers[1], "/opt/other-ca"
    host.output(f"install -d {there}")
    for name in ("key.pem", "cert.pem"):
        host.output(f"cat > {there}/{name}", stdin=(directory / name).read_text())
    host.output(f"sed 's#{TLS}/key#{there}/key#; s#{TLS}/cert#{there}/cert#' {OPTIONS} > {there}/options")
    host.output(f"chmod -R a+rX {there}")
    yield there
    host.output(f"rm -r {there}")


def test_every_node_was_started_with_tls(brokers):
    for host in brokers:
        [line] = [line for line in host.output("ps ax -o args").splitlines() if " -s rabbit boot" in line]
        assert f"-proto_dist inet_tls -ssl_dist_optfile {OPTIONS}" in line


def test_a_node_shows_its_certificate_and_wants_one(brokers):
    hub, two, _ = brokers
    own = f"-cert {TLS}/cert.pem -key {TLS}/key.pem"
    shown = handshake(two, hub, own, "-verify_hostname celery-ops-rabbitmq -verify_return_error")
    assert "Verification: OK" in shown, shown
    assert "alert" not in shown, shown
    assert "alert" in handshake(two, hub), "a client without a certificate"


def test_a_certificate_of_another_ca_is_refused(brokers, other_ca):
    hub, two, _ = brokers
    shown = handshake(two, hub, f"-cert {other_ca}/cert.pem -key {other_ca}/key.pem")
    assert "alert" in shown, shown
    assert ping(two, hub, f"-proto_dist inet_tls -ssl_dist_optfile {other_ca}/options") == "pang"


def test_the_cookie_alone_opens_nothing(brokers):
    hub, two, _ = brokers
    assert ping(two, hub) == "pang", "in clear text"
    assert ping(two, hub, f"-proto_dist inet_tls -ssl_dist_optfile {OPTIONS}") == "pong"


def test_a_running_cluster_is_not_changed_node_by_node(brokers):
    since = "systemctl show --property=ActiveEnterTimestamp rabbitmq-server"
    before = {host: host.output(f"{since}; sha256sum /etc/rabbitmq/rabbitmq-env.conf") for host in brokers}
    run = play("site", options=["--tags", "rabbitmq"], rabbitmq_distribution_tls=False)
    assert run.rc != 0
    assert "are to speak in clear text" in run.words, run.text[-3000:]
    assert "systemctl stop rabbitmq-server" in run.words
    assert {host: host.output(f"{since}; sha256sum /etc/rabbitmq/rabbitmq-env.conf") for host in brokers} == before
