"""What a host is to be: made where missing, corrected where it was edited, shown without secrets, else left alone."""

from __future__ import annotations

import json
import os
import pwd
import time

import pytest
from ansible.module_utils import basic
from ansible_collections.celery_ops.kit.plugins.action.host_state import wanted
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import sandbox
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.paths import with_line, with_option
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.services import is_down, unread
from ansible_collections.celery_ops.kit.plugins.module_utils.proc import stat
from ansible_collections.celery_ops.kit.plugins.modules import host_state

ME = pwd.getpwuid(os.geteuid()).pw_name
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files become root's")


@pytest.fixture
def take(monkeypatch, capsys):
    """Run the module with some steps, and return its answer."""

    def run(*steps, check=False):
        known = {"ANSIBLE_MODULE_ARGS": {"steps": list(steps), "_ansible_check_mode": check, "_ansible_diff": True}}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(known).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
        with pytest.raises(SystemExit):
            host_state.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_a_file_is_made_with_its_directory_and_left_alone_by_the_next_call(take, tmp_path):
    path = tmp_path / "etc/crm/crm.conf"
    steps = [
        {"directory": str(path.parent), "mode": "0750"},
        {"file": str(path), "content": "port = 1\n", "mode": "0640", "group": "daemon"},
    ]
    planned = take(*steps, check=True)
    assert planned["paths"] == [str(path.parent), str(path)] and not path.parent.exists()
    done = take(*steps)
    assert done["changed"] and done["paths"] == planned["paths"]
    assert path.read_text() == "port = 1\n"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o640, 0o750)
    assert path.group() == "daemon"
    inode = path.stat().st_ino
    again = take(*steps)
    assert not again["changed"] and not again["paths"] and path.stat().st_ino == inode


@pytest.mark.parametrize(
    "edit",
    [
        lambda path: path.write_text("port = 2\n"),
        lambda path: path.chmod(0o666),
        lambda path: os.chown(path, 1, 1),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/nowhere")),
    ],
    ids=["text", "mode", "owner", "missing", "dangling link"],
)
def test_what_somebody_edited_is_corrected(take, tmp_path, edit):
    path = tmp_path / "crm.conf"
    step = {"file": str(path), "content": "port = 1\n"}
    take(step)
    edit(path)
    planned = take(step, check=True)
    assert planned["paths"] == [str(path)]
    assert take(step)["paths"] == [str(path)]
    assert path.read_text() == "port = 1\n" and not path.is_symlink()
    assert (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_gid) == (0o644, 0, 0)


def test_the_diff_shows_texts_and_no_secret(take, tmp_path):
    path, secret = tmp_path / "crm.conf", tmp_path / "secret.conf"
    path.write_text("port = 1\n")
    secret.write_text("password sEcret-1\n")
    said = take({"file": str(path), "content": "port = 2\n"}, {"file": str(secret), "secret": "password sEcret-2\n"})
    shown = {each["before_header"].partition(" ")[0]: each for each in said["diff"]}
    assert (shown[str(path)]["before"], shown[str(path)]["after"]) == ("port = 1\n", "port = 2\n")
    assert "cret-" not in json.dumps(said)
    assert secret.read_text() == "password sEcret-2\n"


def test_a_file_that_its_command_refuses_is_not_put_in_place(take, tmp_path):
    path = tmp_path / "rules"
    path.write_text("good\n")
    said = take({"file": str(path), "content": "bad\n", "validate": "grep -q good %s"})
    assert said["failed"] and f"{path} stays as it was: grep refuses the new one" in said["msg"]
    assert path.read_text() == "good\n" and list(tmp_path.iterdir()) == [path]


def test_a_step_is_left_out_where_the_host_lacks_what_it_needs_or_has_what_it_must_not(take, tmp_path):
    here, path = tmp_path / "here", tmp_path / "file"
    here.touch()
    without = {"file": str(path), "content": "x\n", "needs": [str(tmp_path / "none")]}
    beside = {"file": str(path), "content": "x\n", "unless": [str(here)]}
    assert not take(without, beside)["changed"] and not path.exists()
    assert take(without | {"needs": [str(here)]})["paths"] == [str(path)]


def test_what_is_something_else_is_named(take, tmp_path):
    (tmp_path / "there").mkdir()
    assert "must be a file and is a directory" in take({"file": str(tmp_path / "there"), "content": ""})["msg"]
    (tmp_path / "text").touch()
    assert "must be a directory and is something else" in take({"directory": str(tmp_path / "text")})["msg"]


def test_a_link_that_the_application_made_in_place_of_a_directory_is_refused(take, tmp_path):
    target, link = tmp_path / "etc", tmp_path / "metrics"
    target.mkdir()
    link.symlink_to(target)
    assert not take({"directory": str(link)})["changed"]
    os.lchown(link, 1, 1)
    assert "is a link that root has not made" in take({"directory": str(link), "owner": "daemon"})["msg"]
    assert target.owner() == ME


def test_a_user_that_is_not_there_is_named_and_in_check_mode_about_to_come(take, tmp_path):
    step = {"directory": str(tmp_path), "owner": "nobody-of-this-name"}
    assert take(step, check=True)["changed"]
    assert "this host has no user nobody-of-this-name" in take(step)["msg"]


def test_a_line_is_added_once(tmp_path):
    assert with_line("port 1", "include x") == "port 1\ninclude x\n"
    assert with_line("include x\nport 1\n", "include x") == "include x\nport 1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[a]\nchmod=0770 ; mode\n[b]\nchmod=1\n", "[a]\nchmod=0700 ; mode\n[b]\nchmod=1\n"),
        ("[a]\nchmod = 0700\n", "[a]\nchmod = 0700\n"),
        # As Debian has it: nothing has to be restarted for that.
        ("[a] ; here\nchmod=0700     ; (default 0700)\n", "[a] ; here\nchmod=0700     ; (default 0700)\n"),
        ("[a]\nchmod=0700;x\n", "[a]\nchmod=0700\n"),
        ("[a] ; here\nfile=x\n", "[a] ; here\nchmod=0700\nfile=x\n"),
        ("[a]\nfile=x\n[b]\nchmod=0700\n", "[a]\nchmod=0700\nfile=x\n[b]\nchmod=0700\n"),
        ("[b]\n", "[b]\n[a]\nchmod=0700\n"),
        ("[a]\nchmod=0700\nchmod=0777\n", "[a]\nchmod=0700\n"),
    ],
    ids=[
        "another value",
        "right already",
        "right with a comment",
        "another value that looks like a comment",
        "missing after a comment",
        "missing",
        "no section",
        "twice",
    ],
)
def test_an_option_is_set_in_its_section(before, after):
    assert with_option(before, "a", "chmod=0700") == after


def test_a_file_of_somebody_elses_keeps_its_owner_and_mode(take, tmp_path):
    path = tmp_path / "theirs.conf"
    path.write_text("port 1\n")
    os.chown(path, 1, 1)
    path.chmod(0o640)
    assert take({"edit": str(path), "line": "include x"})["paths"] == [str(path)]
    assert path.read_text() == "port 1\ninclude x\n"
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (1, 0o640)
    missing = {"edit": str(tmp_path / "none"), "line": "x"}
    assert "Its package brings it" in take(missing)["msg"]
    assert not take(missing, check=True)["changed"]


def test_a_file_of_somebody_elses_keeps_bytes_that_are_no_utf8(take, tmp_path):
    path = tmp_path / "theirs.conf"
    path.write_bytes("# für alle\r\nport 1\r\n".encode("latin-1"))
    [change] = take({"edit": str(path), "line": "include x"})["diff"]
    assert path.read_bytes() == "# für alle\r\nport 1\r\ninclude x\n".encode("latin-1")
    assert change["after"] == "# f\ufffdr alle\r\nport 1\r\ninclude x\n"


def test_several_kinds_in_one_step_are_refused(take):
    assert "mutually exclusive" in take({"file": "/x", "content": "", "directory": "/y"})["msg"]


@pytest.mark.parametrize(
    ("state", "sub", "down"),
    [
        ("active", "running", False),
        ("reloading", "reload", False),
        ("activating", "start", False),
        ("activating", "auto-restart", True),  # it has failed, and systemd tries again
        ("activating", "auto-restart-queued", True),
        ("failed", "failed", True),
        ("inactive", "dead", True),
    ],
)
def test_a_service_that_failed_and_is_to_be_tried_again_is_down(state, sub, down):
    assert is_down({"ActiveState": state, "SubState": sub}) is down


@pytest.mark.parametrize("state", ["masked", "masked-runtime"])
@pytest.mark.parametrize("check", [False, True])
def test_a_service_that_somebody_has_masked_is_refused_with_what_to_type(check, state, take, monkeypatch):
    answer = {"ActiveState": "inactive", "SubState": "dead", "UnitFileState": state, "NeedDaemonReload": "no"}
    lines = "".join(f"{name}={value}\n" for name, value in answer.items())
    monkeypatch.setattr(sandbox, "systemctl", lambda *words: lines)
    said = take({"service": "crm"}, check=check)
    assert said["msg"] == "crm is masked on this host, so that nothing starts it. Type there: systemctl unmask crm"


NOW, UPTIME = 2_000_000.0, 50_000.0


@pytest.mark.parametrize(
    ("written", "by_clock", "after_boot", "is_unread"),
    [
        (NOW - 100, NOW - 50, UPTIME - 50, False),
        (NOW - 50, NOW - 100, UPTIME - 100, True),
        (NOW - 50, NOW - 100, UPTIME - 40, False),  # the clock was set forward since its start
        (NOW - 50, NOW - 40, UPTIME - 100, False),  # and back
        (NOW + 50, NOW - 100, UPTIME - 100, False),  # a time that is still to come says nothing
    ],
)
def test_a_service_has_not_read_what_was_written_after_its_start(written, by_clock, after_boot, is_unread, tmp_path):
    path = tmp_path / "conf"
    path.touch()
    os.utime(path, (written, written))
    said = {
        "MainPID": "7",
        "ExecMainStartTimestamp": f"@{by_clock:.0f}",
        "ExecMainStartTimestampMonotonic": f"{after_boot * 1e6:.0f}",
    }
    files = [str(path), str(tmp_path / "none")]
    assert unread(files, said, NOW, UPTIME) == [str(path)] * is_unread
    for nothing in ({}, {**said, "MainPID": "0"}, {**said, "ExecMainStartTimestamp": "n/a"}):
        assert unread(files, nothing, NOW, UPTIME) == []


@pytest.mark.parametrize("later", [False, True])
def test_a_service_that_runs_since_before_its_files_is_named_in_each_call_until_it_is_restarted(
    later, take, tmp_path, monkeypatch
):
    conf, times = tmp_path / "conf", tmp_path / "times"
    conf.write_text("port 1\n")
    answer = {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "NeedDaemonReload": "no"}

    def systemctl(*words: str) -> str:
        moment = times.stat().st_mtime
        of_process = {
            "MainPID": "7",
            "ExecMainStartTimestamp": f"@{moment:.0f}",
            "ExecMainStartTimestampMonotonic": f"{(moment - time.time() + time.monotonic()) * 1e6:.0f}",
        }
        assert words[:2] == ("show", "crm")
        found = of_process if "--timestamp=unix" in words else answer
        return "".join(f"{name}={value}\n" for name, value in found.items())

    monkeypatch.setattr(sandbox, "systemctl", systemctl)
    step = {"service": "crm", "reads": [str(conf)], "later": later}
    for ago, is_unread in ((100, True), (100, True), (-1, False)):
        times.touch()
        moment = time.time() - ago
        os.utime(times, (moment, moment))
        said = take(step)
        assert (said["due"] if later else said["unread"]) == ["crm"] * is_unread
        assert said["changed"] is (is_unread and not later)


def test_a_process_that_runs_since_before_its_files_is_named_and_no_other(take, tmp_path):
    conf, pid = tmp_path / "conf", tmp_path / "pid"
    conf.write_text("port 1\n")
    pid.write_text(f"{os.getpid()}\n")
    begun = time.time() - stat(os.getpid()).age
    step = {"process": "crm", "pid": ["cat", str(pid)], "reads": [str(conf), str(tmp_path / "none")]}
    for written, is_unread in ((begun - 10, False), (begun + 0.5, True), (time.time() + 60, False)):
        os.utime(conf, (written, written))
        said = take(step)
        assert (said["unread"], said["changed"]) == (["crm"] * is_unread, is_unread)
    os.utime(conf, (begun + 0.5, begun + 0.5))
    for nothing in ("0\n", "crm: ERROR (no such process)\n", ""):
        pid.write_text(nothing)
        assert not take(step)["changed"]
    pid.unlink()
    assert not take(step)["changed"]


def test_what_is_for_a_later_call_is_only_looked_at(take, tmp_path):
    now, later = tmp_path / "now", tmp_path / "later"
    steps = [{"file": str(later), "content": "x\n", "later": True}, {"file": str(now), "content": "x\n"}]
    done = take(*steps)
    assert (done["paths"], done["due"]) == ([str(now)], [str(later)])
    assert now.exists() and not later.exists()
    assert done["diff"] and not any(str(later) in change["after_header"] for change in done["diff"])
    later.write_text("x\n")
    again = take(*steps)
    assert not again["changed"] and not again["due"]


def test_steps_in_the_place_of_one():
    pair = [{"file": "/b", "when": "no"}, {"file": "/c"}]
    steps = [{"file": "/a"}, {"steps": pair, "later": "yes"}, {"steps": pair, "when": False}]
    assert list(wanted(steps)) == [{"file": "/a"}, {"file": "/c", "later": True}]


def test_an_error_names_the_file_that_was_to_be_written(take):
    said = take({"file": "/proc/1/shop.conf", "content": "port = 1\n"})
    assert said["failed"] and said["msg"] == "[Errno 2] No such file or directory: '/proc/1/shop.conf'"
