"""The certificate that a Redis shows is the one of its file, also after a run that ended before Redis had read it."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.paths import Access
from ansible_collections.celery_ops.kit.plugins.modules import redis_users
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import Certificates
from ansible_collections.celery_ops.kit.plugins.plugin_utils.tls import names_of
from support.module_run import ModuleRun


@pytest.fixture
def certificates(tmp_path):
    """Certificates for two hosts: of one Redis shows its own, the other's is in the file."""
    made = Certificates(tmp_path / "tls", tmp_path / "tls/ca.crt")
    for host in ("old", "new"):
        made.make(host, names_of(host, {"ansible_host": "127.0.0.1"}, is_cluster=False, is_own=False))
    return made


@pytest.fixture
def port(certificates):
    """A server that speaks TLS, and nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate("old"), certificates.key("old"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    context.wrap_socket(listener.accept()[0], server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.fixture
def call(certificates, port, tmp_path, monkeypatch):
    """Run the module for an application whose user is as it is to be; return its answer and what Redis was asked."""
    application = {"name": "shop", "password": "abc", "database": 1}
    users = {**redis_users.own_users("key", "", sentinel=False), "shop": redis_users.rules_of(application)}
    (tmp_path / "acl").write_text(redis_users.with_users("", users))
    (tmp_path / "acl").chmod(0o640)
    monkeypatch.setattr(redis_users, "ACCESS", Access(0o640))
    monkeypatch.setattr(redis_users, "admin_password", lambda: "key")
    asked = tmp_path / "asked"
    monkeypatch.setattr(redis_users, "ask", lambda address, *commands, **login: asked.write_text("\n".join(commands)))

    def run(host: str, **more: object) -> tuple[bool, str]:
        asked.unlink(missing_ok=True)
        shutil.copy(certificates.certificate(host), tmp_path / "cert.pem")
        given = {"port": port, "ca": str(tmp_path / "ca.pem"), **more}
        said = ModuleRun(
            redis_users.main, {"applications": [application], "acl_file": str(tmp_path / "acl"), **given}
        ).result()
        assert not said["restart"]
        return said["changed"], asked.read_text() if asked.exists() else ""

    return run


def test_a_certificate_that_redis_has_not_read_is_read_by_the_next_run(call, tmp_path):
    command = f"CONFIG SET tls-cert-file {tmp_path}/cert.pem"
    assert call("old") == (False, "")
    assert call("new") == (True, command)
    assert call("new", _ansible_check_mode=True) == (True, "")


def test_a_redis_without_tls_or_that_does_not_run_is_asked_for_none(call, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    assert call("new", port=nobody) == (False, "")
    assert call("new", ca="") == (False, "")
