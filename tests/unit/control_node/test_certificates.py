"""The certificates that the control node makes: real handshakes, renewal, and what is refused."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.action import credentials_check
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.modules import tls_files
from ansible_collections.celery_ops.kit.plugins.plugin_utils import certificates as making
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import (
    LIFETIME,
    Certificates,
    authorities_in,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.tls import NAME, client_file, is_on, names_of
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.module_run import ModuleRun

ROOT = Path(__file__).parents[3]
NOW = datetime.datetime.now(datetime.UTC)
FLEET = {"rabbitmq": ["hub"], "result_store": ["hub"], "worker": ["one"], "web": ["hub"]}
ALONE = {group: ["hub"] for group in ("rabbitmq", "result_store", "worker", "scheduler", "web")}


@pytest.fixture
def made(tmp_path):
    """A certificate for a hub, made a moment ago."""
    certificates = Certificates(tmp_path / "tls", tmp_path / "tls/ca.crt", NOW)
    certificates.make("hub", names())
    return certificates


def names(address="10.0.0.5"):
    return names_of("hub", {"ansible_host": address}, is_cluster=False, is_own=False)


def later(certificates, days):
    return Certificates(certificates.directory, certificates.ca, NOW + datetime.timedelta(days=days))


def shake_hands(certificates, name, ca=None):
    """Raise SSLError unless a client that trusts the CA takes the hub's certificate for that name."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.certificate("hub"), certificates.key("hub"))
    client = ssl.create_default_context(cafile=ca or certificates.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    here, there = socket.socketpair()

    def serve():
        try:
            server.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name):
            pass
    finally:
        here.close()
        thread.join(10)


@pytest.mark.parametrize("name", ["hub", "10.0.0.5", "127.0.0.1", "localhost", NAME])
def test_a_client_verifies_any_of_the_hosts_names(made, name):
    shake_hands(made, name)


def test_another_name_and_another_ca_are_refused(made, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn.t match|not valid for"):
        shake_hands(made, "elsewhere")
    other = Certificates(tmp_path / "other", tmp_path / "other/ca.crt", NOW)
    other.make("hub", names())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, "hub", other.ca)


def test_nobody_else_reads_a_key_and_a_second_run_makes_nothing(made):
    keys = [path for path in made.directory.iterdir() if path.suffix == ".key"]
    assert {path.name for path in keys} == {"ca.key", "hub.key"}
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert made.directory.stat().st_mode & 0o777 == 0o700
    assert made.lacks("hub", names()) == ""


def test_what_a_client_shows_is_for_clients_alone(made, tmp_path):
    file = client_file(made.directory, "shop", "one")
    assert made.lacks_client(file) == "there is none"
    made.make_client(file, "shop@one")
    assert made.lacks_client(file) == ""
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert later(made, 340).lacks_client(file).startswith("it ends on ")
    assert verified_as("sslclient", file, made.ca)
    assert not verified_as("sslserver", file, made.ca), "nobody poses as a broker with it"
    other = Certificates(tmp_path / "other", tmp_path / "other/ca.crt", NOW)
    other.make_client(client_file(other.directory, "shop", "one"), "shop@one")
    assert made.lacks_client(client_file(other.directory, "shop", "one")) == "no CA of the file has signed it"
    made.certificate("hub").write_text(made.key("hub").read_text() + made.certificate("hub").read_text())
    assert made.lacks_client(made.certificate("hub")) == "", "one of the inventory's own may be for both"


def verified_as(purpose, file, ca):
    """Whether OpenSSL takes a certificate for that purpose."""
    words = ["openssl", "verify", "-purpose", purpose, "-CAfile", ca, file]
    return subprocess.run(words, capture_output=True).returncode == 0


def test_the_line_of_the_docs_makes_a_certificate_for_a_client_of_ones_own(made, tmp_path):
    text = (ROOT / "docs/fleet.md").read_text()
    [line] = re.findall(r"openssl req .*?billing\.crt", text, re.DOTALL)
    subprocess.run(["sh", "-c", line], cwd=made.directory, check=True, capture_output=True)
    assert verified_as("sslclient", made.directory / "billing.crt", made.ca)
    assert not verified_as("sslserver", made.directory / "billing.crt", made.ca)
    billing = tmp_path / "billing.pem"
    billing.write_text("".join((made.directory / f"billing.{end}").read_text() for end in ("key", "crt")))
    assert made.lacks_client(billing) == ""


def test_it_is_renewed_before_its_end_and_the_ca_stays(made):
    ca = made.ca.read_text()
    assert later(made, 300).lacks("hub", names()) == ""
    late = later(made, 340)
    assert late.lacks("hub", names()).startswith("it ends on ")
    late.make("hub", names())
    assert late.lacks("hub", names()) == ""
    assert made.ca.read_text() == ca
    assert LIFETIME.days < 398


def test_another_address_another_key_and_another_ca_need_a_new_one(made):
    assert made.lacks("hub", names("10.0.0.6")) == "it is not for 10.0.0.6"
    assert made.lacks("two", names()) == "there is none"
    key = made.key("hub").read_text()
    made.key("hub").write_text(made.ca_key.read_text())
    assert made.lacks("hub", names()) == "its key is another one"
    made.key("hub").write_text(key)
    made.ca_key.unlink()
    made.ca.unlink()
    made.make("two", names())
    assert made.lacks("hub", names()) == "no CA of the file has signed it"


def test_a_ca_that_follows_another_is_trusted_beside_it_first(made, tmp_path):
    other = Certificates(tmp_path / "other", tmp_path / "other/ca.crt", NOW)
    other.make("hub", names())
    made.ca.write_text(other.ca.read_text() + made.ca.read_text())
    assert made.lacks("hub", names()) == ""
    made.ca_key.write_text(other.ca_key.read_text())
    made.make("hub", names())
    shake_hands(made, "hub", other.ca)


def test_a_node_shows_its_certificate_and_one_that_is_for_servers_alone_is_named(made, monkeypatch):
    assert made.lacks_client_use("hub") == ""
    monkeypatch.setattr(ExtendedKeyUsageOID, "CLIENT_AUTH", ExtendedKeyUsageOID.SERVER_AUTH)
    made.make("hub", names())
    monkeypatch.undo()
    assert made.lacks_client_use("hub") == "it is for servers alone (extendedKeyUsage)"


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_half_a_ca_is_no_reason_to_make_another(made, lost):
    (made.directory / lost).unlink()
    with pytest.raises(OperatorError, match="from your backup"):
        made.make("two", names())


def test_names_of_ones_own_certificate_are_those_that_clients_ask_for():
    known = {"ansible_host": "10.0.0.5"}
    assert names_of("hub", known, is_cluster=False, is_own=True) == ["10.0.0.5"]
    assert names_of("hub", known, is_cluster=True, is_own=True) == ["10.0.0.5", NAME]
    assert "web_1" in names_of("web_1", {}, is_cluster=False, is_own=False)


@pytest.mark.parametrize(
    ("groups", "given", "wanted", "on"),
    [
        (ALONE, {}, True, False),
        (FLEET, {}, True, True),
        (FLEET, {}, "no", False),
        (FLEET, {"rabbitmq_shared": True}, True, False),
        ({"worker": ["one"]}, {}, True, False),
        (ALONE | {"rabbitmq": ["hub", "b", "c"]}, {}, True, True),
        (ALONE | {"rabbitmq": ["hub", "b"]}, {"rabbitmq_bind": "127.0.0.1"}, True, False),
    ],
)
def test_it_is_on_where_other_hosts_use_the_broker(groups, given, wanted, on):
    assert is_on("rabbitmq", groups, lambda _: given, wanted) is on


def test_the_status_reads_when_it_ends(made):
    from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import ends_of

    file = str(made.certificate("hub"))
    [end] = ends_of([file, str(made.key("hub")), "/nowhere"]).values()
    assert abs(end - (NOW + LIFETIME).timestamp()) < 2


def test_the_ca_is_rotated_and_each_side_trusts_what_the_other_shows_at_every_step(made, tmp_path):
    """What clients hold is the CA's file of the step before or of this one, at each of the steps."""
    files, client = [made.ca.read_text()], client_file(made.directory, "shop", "one")
    made.make_client(client, "shop@one")

    def step():
        files.append(made.ca.read_text())
        for number, text in enumerate(files[-2:]):
            held = tmp_path / f"held-{number}.crt"
            held.write_text(text)
            shake_hands(made, "hub", held)

    assert made.begin_rotation()
    assert made.lacks("hub", names()) == "", "nobody trusts the new one yet"
    step()
    assert made.sign_with_next()
    assert made.lacks("hub", names()) == "the CA that has signed it goes"
    step()
    made.make("hub", names())
    assert made.lacks("hub", names()) == ""
    assert made.lacks_client(client) == "the CA that has signed it goes"
    made.make_client(client, "shop@one")
    assert made.lacks_client(client) == ""
    step()
    assert made.withdraw_former()
    assert not made.withdraw_former()
    assert len(made.authorities()) == 1
    step()
    assert not made.begin_rotation(), "not before every host has the file"
    assert made.lacks("hub", names()) == ""
    assert made.end_rotation()
    assert not made.end_rotation()
    assert {path.name for path in made.directory.iterdir()} == {"ca.crt", "ca.key", "clients", "hub.crt", "hub.key"}
    assert made.ca_key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ssl.SSLCertVerificationError):
        (tmp_path / "first.crt").write_text(files[0])
        shake_hands(made, "hub", tmp_path / "first.crt")


@pytest.mark.parametrize("writes", range(3))
def test_a_rotation_of_the_ca_that_is_killed_between_two_writes_is_continued(made, killed_after, writes):
    with killed_after(making, writes):
        made.begin_rotation()
    assert made.begin_rotation()
    assert not made.begin_rotation(), "no second one"
    assert len(made.authorities()) == 2
    assert made.sign_with_next()
    assert not made.sign_with_next()
    assert not made.begin_rotation(), "nor now"
    made.make("hub", names())
    assert made.withdraw_former()
    assert made.end_rotation()
    shake_hands(made, "hub")


class Look(credentials_check.ActionModule):
    """The action on this machine, for which no connection is needed."""

    def __init__(self, arguments):
        self._task = type("Task", (), {"args": arguments})

    def output_of(self, command):
        return subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("is_service", [True, False])
def test_a_lost_ca_is_known_by_what_a_host_has(made, tmp_path, monkeypatch, is_service):
    ours, none, foreign = tmp_path / "ours.pem", tmp_path / "none.pem", tmp_path / "foreign.pem"
    ours.write_text(made.ca.read_text() + made.ca.read_text())
    foreign.write_text(made.certificate("hub").read_text())
    monkeypatch.setattr(credentials_check, "AUTHORITIES", {"broker": ours if is_service else none})
    arguments = {"app": "shop", "directory": "kept", "files": {}, "broker": True}
    missing = ["kept/tls/ca.crt", "kept/tls/ca.key"]

    def said(*installed):
        authority = {"missing": missing, "installed": list(map(str, installed))}
        return Look(arguments | {"authority": authority}).act().get("msg", "")

    assert said(none, foreign) == Look(arguments | {"authority": {}}).act().get("msg", "") == ""
    [name] = authorities_in(ours.read_text())
    text = said(none, ours)
    assert f"{name} ({ours})" in text and "Restore the directory from your backup: kept/tls" in text
    assert ("celery_app_tls_directory: <its directory>" in text) is is_service, "the application's own is no other's"


def test_another_ca_is_installed_on_purpose_alone(made, tmp_path):
    other = Certificates(tmp_path / "other", tmp_path / "other/ca.crt", NOW)
    other.make("hub", names())

    def install(given, **options):
        files = {"ca": given.ca, "certificate": given.certificate("hub"), "key": given.key("hub")}
        texts = {name: path.read_text() for name, path in files.items()}
        return ModuleRun(
            tls_files.main, {"directory": str(tmp_path / "host"), "group": "root", **texts, **options}
        ).result()

    assert install(made)["changed"]
    assert "has a certificate of another CA" in install(other)["msg"]
    assert (tmp_path / "host/ca.pem").read_text() == made.ca.read_text()
    assert install(other, replace=True)["changed"]
    assert (tmp_path / "host/ca.pem").read_text() == other.ca.read_text()
