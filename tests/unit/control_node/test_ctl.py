"""<app>ctl: what it tells the runtime to pause. tests/operate/test_ctl.py has it on a host."""

from __future__ import annotations

import getpass
import json
import subprocess

import pytest
from support.control import ROOT

APP = getpass.getuser()
"""Called like its user, it needs neither sudo nor root."""


@pytest.fixture
def ctl(tmp_path):
    """The command, in directories of the test's own, where the runtime prints what it is told."""
    text = (ROOT / "roles/celery/templates/ctl.j2").read_text()
    for name, value in (
        ("ansible_managed | comment", ""),
        ("celery_app_name", APP),
        ("celery_app_module | quote", "shop"),
    ):
        text = text.replace(f"{{{{ {name} }}}}", value)
    for directory in ("/srv/", "/var/log/"):
        text = text.replace(directory, f"{tmp_path}{directory}")
    command, environment = tmp_path / "ctl", tmp_path / f"srv/{APP}/current/bin/celery-ops-env"
    command.write_text(text)
    environment.parent.mkdir(parents=True)
    environment.write_text('#!/bin/sh\nshift 4\nprintf "%s\\n" "$@"\n')
    environment.chmod(0o755)
    logs = tmp_path / f"var/log/{APP}"
    logs.mkdir(parents=True)
    (logs / "worker-default.log").symlink_to("gone")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", str(command), *words], capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("words", "what", "name"),
    [
        (("all",), "all", ""),
        (("program", "default"), "program", f"{APP}-worker-default"),
        (("program", "worker-default"), "program", f"{APP}-worker-default"),
        (("program", f"{APP}-worker-default"), "program", f"{APP}-worker-default"),
        (("program", "scheduler"), "scheduler", ""),
        *((("queue", name), "queue", name) for name in ("build:default", "a/b", "#", "*", "50% off", "größe")),
    ],
)
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_is_paused_and_resumed(ctl, verb, words, what, name):
    done = ctl(verb, *words)
    assert done.returncode == 0, done
    command, action, entries = done.stdout.splitlines()
    assert (command, action) == ("celery-ops-pause", {"pause": "add", "resume": "remove"}[verb])
    [entry] = json.loads(entries)
    assert (entry["what"], entry["name"]) == (what, name)


@pytest.mark.parametrize(
    "words",
    [("queue",), ("program", "mail"), ("program",), ("queue", 'a", "x'), ("queue", "a\\"), ("queue", "a\nb"), ("x",)],
)
def test_what_would_pause_nothing_is_refused(ctl, words):
    done = ctl("pause", *words)
    assert done.returncode == 2 and done.stdout == "", done
