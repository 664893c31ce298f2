"""A broker over TLS, as far as its certificate decides: real handshakes with a listener that speaks no AMQP."""

import json
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from support.stage import clean_environment

KIT = "app.config_from_object('celery_ops.settings')\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and certificates of it for two names."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign")
    for name in ("IP:127.0.0.1", "DNS:elsewhere"):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={name}")
        openssl(*new, *signed, "-subj", f"/CN={name[:2]}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return directory


@pytest.fixture
def broker(certificates):
    """Start a listener with the certificate for a name; return its port, and what clients wrote after the handshake."""
    with socket.socket() as listener:

        def start(name, demands=False):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if demands:
                context.load_verify_locations(certificates / "ca.pem")
                context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            heard = []

            def serve():
                while True:
                    try:
                        with context.wrap_socket(listener.accept()[0], server_side=True) as client:
                            heard.append(client.recv(4))
                    except ssl.SSLError:
                        continue
                    except OSError:
                        return

            threading.Thread(target=serve, daemon=True).start()
            return listener.getsockname()[1], heard

        yield start
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("settings", "name", "trusted", "said"),
    [
        (KIT, "IP:127.0.0.1", True, ""),
        (KIT, "DNS:elsewhere", True, "IP address mismatch"),
        (KIT, "IP:127.0.0.1", False, "unable to get local issuer certificate"),
        ("", "IP:127.0.0.1", False, "unable to get local issuer certificate"),
        # Why the kit's settings name the host.
        ("", "DNS:elsewhere", True, ""),
    ],
)
def test_only_a_broker_with_a_certificate_for_its_host_gets_the_password(
    tmp_path, broker, certificates, settings, name, trusted, said
):
    port, heard = broker(name)
    (tmp_path / "demo.py").write_text(f"from celery import Celery\napp = Celery('demo')\n{settings}")
    environment = {"CELERY_BROKER_URL": f"amqps://demo:secret@127.0.0.1:{port}/demo"}
    if trusted:
        environment["SSL_CERT_FILE"] = str(certificates / "ca.pem")
    done = subprocess.run(
        [sys.executable, "-m", "celery_ops.cli.ready", "-A", "demo", "--node", "demo@host", "--timeout", "8"],
        **{"cwd": tmp_path, "env": clean_environment(**environment), "capture_output": True, "text": True},
    )
    reason = json.loads(done.stdout)["reason"]
    assert ("shows a certificate that is not accepted" in reason) == bool(said), reason
    assert said in reason and "secret" not in reason
    assert (b"AMQP" in heard) == (not said)


@pytest.mark.parametrize(
    ("name", "said"), [("elsewhere", ""), ("somewhere", "Hostname mismatch"), ("", "IP address mismatch")]
)
def test_the_kits_own_brokers_are_verified_by_the_name_that_all_have(tmp_path, broker, certificates, name, said):
    port, heard = broker("DNS:elsewhere")
    (tmp_path / "demo.py").write_text(f"from celery import Celery\napp = Celery('demo')\n{KIT}")
    environment = {
        "CELERY_BROKER_URL": f"amqps://demo:secret@127.0.0.1:{port}/demo",
        "CELERY_OPS_TLS_CA": str(certificates / "ca.pem"),
        "CELERY_OPS_TLS_NAME": name,
    }
    done = subprocess.run(
        [sys.executable, "-m", "celery_ops.cli.ready", "-A", "demo", "--node", "demo@host", "--timeout", "8"],
        **{"cwd": tmp_path, "env": clean_environment(**environment), "capture_output": True, "text": True},
    )
    assert said in json.loads(done.stdout)["reason"]
    assert (b"AMQP" in heard) == (not said)


@pytest.mark.parametrize("shows", [True, False])
def test_a_broker_that_demands_a_certificate_hears_those_that_show_one(tmp_path, broker, certificates, shows):
    """The settings, and the watchdog's own connection."""
    port, heard = broker("IP:127.0.0.1", demands=True)
    (tmp_path / "demo.py").write_text(f"from celery import Celery\napp = Celery('demo')\n{KIT}")
    # Certificate and key in one file, as the kit installs them.
    shown = tmp_path / "client.pem"
    shown.write_text("".join((certificates / f"IP:127.0.0.1.{end}").read_text() for end in ("key", "pem")))
    environment = {
        "CELERY_BROKER_URL": f"amqps://demo:secret@127.0.0.1:{port}/demo",
        "CELERY_OPS_TLS_CA": str(certificates / "ca.pem"),
        **({"CELERY_OPS_TLS_CLIENT": str(shown)} if shows else {}),
    }
    ask = "from celery_ops.watchdog.broker import Broker; Broker.of_environment('demo').look()"
    for words in (["-m", "celery_ops.cli.ready", "-A", "demo", "--node", "demo@host", "--timeout", "6"], ["-c", ask]):
        heard.clear()
        given = {"cwd": tmp_path, "env": clean_environment(**environment), "capture_output": True, "text": True}
        subprocess.run([sys.executable, *words], **given)
        assert (b"AMQP" in heard) == shows, words
