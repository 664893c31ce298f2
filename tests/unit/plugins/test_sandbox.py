"""What a host can't do is switched off for a unit, and no more than that."""

import re
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import sandbox

ROOT = Path(__file__).resolve().parents[3]
# As `systemctl show` says it of Redis's unit.
REDIS = {
    "PrivateUsers": "yes",
    "PrivateTmp": "yes",
    "ProtectSystem": "strict",
    "ProtectProc": "invisible",
    "ReadWritePaths": "-/var/lib/redis -/var/log/redis",
    "PrivateNetwork": "no",
    "BindPaths": "",
}


def test_without_user_namespaces_only_those_are_switched_off():
    assert sandbox.off("217", REDIS) == ["PrivateUsers=no\n"]


def test_without_mount_namespaces_what_the_unit_mounts_is_switched_off():
    said = sandbox.off("226", REDIS)
    assert said == ["PrivateTmp=no\n", "ProtectSystem=no\n", "ProtectProc=default\n", "ReadWritePaths=\n"]


def test_nothing_is_left_to_switch_off_where_it_was_already():
    assert sandbox.off("217", {"PrivateUsers": "no"}) == []


def test_each_option_of_our_own_that_needs_a_namespace_can_be_switched_off():
    lines = (ROOT / "roles/supervisor/templates/dropin.conf.j2").read_text()
    ours = set(re.findall(r"^((?:Private|Protect|ReadOnly|ReadWrite|Inaccessible|Bind)\w+)=", lines, re.M))
    assert ours
    assert ours <= set(sandbox.MOUNTS)


def test_the_status_is_that_of_the_attempt_which_failed_though_systemd_begins_another(monkeypatch):
    failed = {"ActiveState": "activating", "SubState": "auto-restart", "MainPID": "0", "ExecMainStatus": "217"}
    again = failed | {"SubState": "start", "MainPID": "1", "ExecMainStatus": "0"}
    answers = iter([failed, again])
    monkeypatch.setattr(sandbox, "properties", lambda unit, *names: next(answers))
    assert sandbox.ended_with("redis-server") == "217"


def test_the_drop_in_comes_after_the_kits_own():
    assert sorted(["celery-ops.conf", sandbox.DROPIN])[-1] == sandbox.DROPIN


def test_no_test_host_carries_a_workaround_that_users_lack():
    assert [path.name for path in (ROOT / "tests/hosts/image").rglob("*.service.d")] == []
