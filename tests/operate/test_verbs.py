"""What holds for every verb: in check mode it says what it would do, or shows what it shows, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.control import EPHEMERAL, play
from support.long import LONG

ID = "0c4e0d3e-4f0e-4c38-9d0a-6f1c7c1f0a11"
VERBS: dict[str, tuple[str, dict[str, Any], str]] = {
    "pause": ("pause", {"celery_app_pause_queue": "petct"}, "would pause queue petct"),
    "resume": ("resume", {}, "would resume queue petct"),
    "maintenance on": ("maintenance", {"celery_app_maintenance": "on"}, "would pause everything"),
    "maintenance off": ("maintenance", {"celery_app_maintenance": "off"}, "maintenance off: paused is"),
    "revoke": ("tasks", {"celery_app_tasks": "revoke", "celery_app_tasks_id": ID}, f"would revoke {ID}"),
    "tasks": ("tasks", {}, "SCHEDULED in the broker: "),
    "purge": ("purge", {"celery_app_purge": "petct"}, "would move them to petct.dead (check mode)"),
    "logs": ("logs", {}, "shown: "),
    "exec": ("exec", {"celery_app_exec": "true"}, "would run, as petct: true"),
    "restart": ("restart", {}, "restart (check mode): petct-"),
    "scale": ("scale", {"celery_app_scale": "default=2"}, "nothing to do"),
    "backup": (
        "backup",
        {"celery_app_backup_file": f"{EPHEMERAL}/never.sealed"},
        "never.sealed (check mode); messages that wait: ",
    ),
    "restore": (
        "restore",
        {"celery_app_backup_file": f"{EPHEMERAL}/verbs.sealed", "celery_app_restore_used": "yes"},
        "verbs.sealed of 20",
    ),
    "doctor": ("doctor", {}, "doctor of "),
    "report": ("report", {"celery_app_report_over": "hour"}, "petct-worker-default: memory"),
    "dead_letters": ("dead_letters", {"celery_app_dead_letters": "replay"}, "dead letters in petct.dead"),
    "status": ("status", {"status_exit": False}, "petct on "),
}


def state(host) -> list[str]:
    """What a verb could change."""
    files = "/var/log/petct/deploys.log /var/lib/petct/pause.json /etc/supervisor/conf.d/* /var/lib/petct/revoked/*"
    return [host.ask(f"cat {files} | md5sum"), str(host.running()), host.ask("ls -A /srv/petct /srv/petct/releases")]


@pytest.fixture(scope="module")
def paused(host):
    """Something to resume, and a backup to restore."""
    file = EPHEMERAL / "verbs.sealed"
    file.unlink(missing_ok=True)
    assert play("backup", celery_app_backup_file=str(file)).rc == 0
    assert play("pause", celery_app_pause_queue="petct").rc == 0
    yield
    assert play("resume").rc == 0


@LONG
@pytest.mark.parametrize("case", VERBS)
def test_check_mode_changes_nothing_and_says_what_would_be_done(host, paused, case):
    verb, given, words = VERBS[case]
    before = state(host)
    done = play(verb, options=["--check", "--diff"], **given)
    assert done.rc == 0, done.text
    assert words in done.words, done.text
    assert state(host) == before
    assert not (EPHEMERAL / "never.sealed").exists()


def test_status_of_a_host_that_works(host):
    done = play("status")
    assert done.rc == 0, done.text
    assert "OK" in done.words
    assert done.changed == {host.name: 0}
