"""All secrets of a fleet, its CA included, are rotated under load: nothing is lost, and no broker restarts."""

from __future__ import annotations

import pytest
from support.control import EPHEMERAL, play, start
from support.host import APP
from support.load import Load, reconciled
from support.long import LONG
from support.wait import wait_until

pytestmark = LONG

SECRETS = EPHEMERAL / "secrets"
CA = SECRETS / "tls/ca.crt"
COOKIE = "cat /var/lib/rabbitmq/.erlang.cookie"
SINCE = "systemctl show --property=ActiveEnterTimestamp rabbitmq-server"
TLS = "/etc/rabbitmq/tls"
SHOWN = "openssl s_client -connect {address}:{port} -CAfile /tmp/new-ca.crt -verify_return_error 2>&1 < /dev/null"
BETWEEN = (
    f"openssl s_client -tls1_2 -connect {{address}}:25672 -cert {TLS}/cert.pem -key {TLS}/key.pem -CAfile {TLS}/ca.pem "
    "-verify_return_error 2>&1 < /dev/null"
)


def secrets_now():
    """What is secret on the control node, and the CA, by the file's name."""
    files = [*SECRETS.glob(f"{APP}_*_password"), SECRETS / "rabbitmq_erlang_cookie", CA]
    return {path.name: path.read_text().strip() for path in files}


@pytest.mark.timeout(1200)
def test_all_of_them_are_rotated_and_nothing_is_lost(brokers, workers, tmp_path):
    before, since = secrets_now(), {host: host.output(SINCE) for host in brokers}
    first = Load(workers[0], "rotated-first")
    wait_until(lambda: len(first.executions()) > 20, 60, "a steady load")
    said = tmp_path / "said"
    with said.open("w") as output:
        run = start("rotate_secrets", output=output)
    # The first load logs in as the user that is removed in the end; the second one goes on over certificates and CA.
    wait_until(lambda: "Rotate secrets 3/6" in said.read_text() or run.poll() is not None, 600, "programs handed over")
    second = Load(workers[0], "rotated-second")
    run.wait(600)
    assert run.returncode == 0, said.read_text()[-4000:]
    wait_until(lambda: len(second.executions()) > 20, 60, "tasks with the new secrets")
    for load in (first, second):
        numbers = reconciled(load, workers)
        print(f"{load.run}: {numbers}")
        assert numbers["lost"] == [], numbers
        assert numbers["confirmed"] > 20, numbers
    now = secrets_now()
    assert [name for name in before if now[name] == before[name]] == []
    hidden = [*before.items(), *now.items()]
    assert [name for name, value in hidden if name != CA.name and value in said.read_text()] == []
    assert now[CA.name].count("BEGIN CERTIFICATE") == 1
    assert [path.name for path in SECRETS.rglob("*") if path.suffix in (".old", ".new")] == []
    assert {host: host.output(SINCE) for host in brokers} == since, "no broker was restarted"


def test_every_service_shows_a_certificate_of_the_new_ca_alone(brokers, hub, workers):
    # From a host of the fleet: the control node may not reach them.
    workers[0].run("cat > /tmp/new-ca.crt", stdin=CA.read_text())
    for host, port in [*((host, 5671) for host in brokers), (hub, 6379)]:
        said = workers[0].ask(SHOWN.format(address=host.address, port=port))
        assert "Verification: OK" in said, said
    for host in brokers:
        assert host.output(f"cat {TLS}/ca.pem") == CA.read_text().strip()
        said = host.ask(BETWEEN.format(address=brokers[0].address))
        assert "Verification: OK" in said, said
        assert "alert" not in said, said


@pytest.mark.timeout(300)
def test_the_nodes_know_the_new_cookie_and_nothing_restarts_them_later(brokers):
    for host in brokers:
        assert host.output(COOKIE) == secrets_now()["rabbitmq_erlang_cookie"]
        assert host.output("rabbitmqctl -q eval 'length(nodes()).'") == "2"
    again = play("site", options=["--tags", "rabbitmq,result_store"])
    assert again.rc == 0, again.text[-3000:]
    assert sum(again.changed.values()) == 0, again.text[-3000:]
