"""What only a host can tell, where the end-to-end tests beside this one have no host that is like that."""

from __future__ import annotations

import getpass
import os
import socket

import host_check
import pytest

SUPPORTED = {"debian": ["12", "13"]}


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', False),
        ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n', True),
        ('ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04"\n', True),
        ("ID=debian\nPRETTY_NAME='Debian GNU/Linux forky/sid'\n", True),
        ("", True),
    ],
    ids=["bookworm", "bullseye", "ubuntu", "sid", "nothing"],
)
def test_only_debian_12_and_13(release, refused, tmp_path):
    (tmp_path / "os-release").write_text(release)
    said = list(host_check.distribution(SUPPORTED, tmp_path / "os-release"))
    assert bool(said) is refused
    assert all("the kit supports Debian 12 and 13" in text for text in said)


def test_a_node_name_that_would_hide_data_is_refused(tmp_path):
    assert list(host_check.node("rabbit@localhost", str(tmp_path))) == []
    for name in ("rabbit@old", "rabbit@old-plugins-expand"):
        (tmp_path / name).mkdir()
    assert list(host_check.node("rabbit@old", str(tmp_path))) == []
    [said] = host_check.node("rabbit@localhost", str(tmp_path))
    assert "holds data of rabbit@old: " in said
    assert "Write: rabbitmq_node_name: rabbit@old, or" in said


def test_a_person_is_no_application():
    [said] = host_check.name(getpass.getuser())
    assert "a user of that name is there" in said


def test_a_name_that_nobody_has_is_free():
    assert list(host_check.name("no_such_application")) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_who_listens_is_found_at_its_address_and_at_all(address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [(user, program)] = host_check.listening(address, port).values()
        assert user == getpass.getuser()
        assert f"(pid {os.getpid()})" in program
        assert host_check.listening("127.0.0.2", port) == {}
    assert host_check.listening(address, port) == {}


def test_a_port_is_ours_by_its_user_or_by_our_conf(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        bind = f"127.0.0.1:{server.getsockname()[1]}"

        def said(app: str) -> list[str]:
            return list(host_check.ports({"celery_web_bind": bind}, app, str(tmp_path)))

        assert said(getpass.getuser()) == []
        (tmp_path / "notes-web-listener-01234567.conf").write_text(f"command=listener --bind {bind} --user notes\n")
        assert said("notes") == []
        assert f"of {getpass.getuser()} listens already. Stop it, or write: celery_web_bind: 127" in said("shop")[0]
