"""A package source of somebody else's: what apt is told, and that nothing else is taken from it."""

from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.services import package_source
from ansible_collections.celery_ops.kit.plugins.module_utils.services.package_source import (
    changes,
    files,
    unlike,
    write,
)

SOURCE = {
    "uris": ["https://apt.example.com/server", "https://apt.example.com/erlang"],
    "suite": "trixie",
    "components": ["main"],
    "key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n...\n-----END PGP PUBLIC KEY BLOCK-----",
    "pins": {"rabbitmq-server": "4.2.*", "erlang*": "1:27.*"},
}
ENTRY = """\
# Written by celery-ops; changes are overwritten.
Types: deb
URIs: https://apt.example.com/server https://apt.example.com/erlang
Suites: trixie
Components: main
Signed-By: /etc/apt/keyrings/rabbit.asc
"""
PINS = """\
# Written by celery-ops; changes are overwritten.
Package: rabbitmq-server
Pin: version 4.2.*
Pin-Priority: 1001

Package: erlang*
Pin: version 1:27.*
Pin-Priority: 1001

Package: *
Pin: origin "apt.example.com"
Pin-Priority: -1
"""


def test_what_apt_is_told(tmp_path):
    wanted = files("rabbit", SOURCE, tmp_path)
    assert wanted == {
        tmp_path / "etc/apt/keyrings/rabbit.asc": SOURCE["key"] + "\n",
        tmp_path / "etc/apt/sources.list.d/rabbit.sources": ENTRY,
        tmp_path / "etc/apt/preferences.d/rabbit.pref": PINS,
    }
    assert changes(wanted) == wanted
    write(wanted)
    assert changes(wanted) == {}
    assert {path.stat().st_mode & 0o777 for path in wanted} == {0o644}


def test_only_what_is_another_is_written_again(tmp_path):
    write(files("rabbit", SOURCE, tmp_path))
    other = files("rabbit", SOURCE | {"pins": SOURCE["pins"] | {"rabbitmq-server": "4.3.*"}}, tmp_path)
    assert [path.name for path in changes(other)] == ["rabbit.pref"]


def test_a_repository_in_a_directory_has_no_components_and_no_host(tmp_path):
    local = {key: value for key, value in SOURCE.items() if key != "components"}
    wanted = files("rabbit", local | {"uris": ["file:///srv/apt"], "suite": "./"}, tmp_path)
    assert "Components" not in wanted[tmp_path / "etc/apt/sources.list.d/rabbit.sources"]
    assert 'Pin: origin ""\n' in wanted[tmp_path / "etc/apt/preferences.d/rabbit.pref"]


def test_no_source_is_no_file():
    assert files("rabbit", {}, Path("/nowhere")) == {}
    assert package_source.changes({}) == {}


def test_what_is_not_pinned_like_that():
    found = {"rabbitmq-server": "4.0.5-6", "redis-server": "7"}
    assert unlike(SOURCE["pins"], found) == {"rabbitmq-server": "4.0.5-6"}
    assert unlike(SOURCE["pins"], {"rabbitmq-server": "4.2.1-1"}) == {}
    assert unlike(SOURCE["pins"], {"rabbitmq-server": ""}) == {"rabbitmq-server": ""}
