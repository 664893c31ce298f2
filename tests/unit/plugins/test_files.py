"""Replacing a file in one step: what it leaves when it works, and when the disk is full."""

import errno
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.files import (
    point,
    read_json,
    text_if_there,
    write_atomically,
    write_json,
)


def test_a_new_file_has_its_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "file", "text\n", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_text() == "text\n"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_reader_that_has_it_open_reads_the_old_one_to_its_end(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_what_an_interrupted_run_left_is_no_obstacle_and_lends_it_no_mode(tmp_path):
    left = tmp_path / ".file.new"
    left.write_text("half")
    left.chmod(0o666)
    write_atomically(tmp_path / "file", "whole", 0o600)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert not left.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_belongs_to_whom_it_should(tmp_path):
    write_atomically(tmp_path / "file", "text", 0o640, "root", pwd.getpwnam("games").pw_gid)
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (0, pwd.getpwnam("games").pw_gid)


FULL = """
import resource, signal, sys
from pathlib import Path
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    write_atomically(Path(sys.argv[1]), "x" * 100)
except OSError as error:
    print(error.errno, error.filename)
"""


def test_where_it_does_not_fit_the_old_file_stays_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    probe = """
import sys
sys.path.append(sys.argv[2])
"""
    utils = str(Path(__file__).parents[3] / "collections")
    done = subprocess.run([sys.executable, "-c", probe + FULL, path, utils], capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG} {path}\n"
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_directory_that_is_missing_is_named_by_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "none/file", "text")
    assert caught.value.filename == str(tmp_path / "none/file")


def test_a_link_is_moved_in_one_step_and_only_when_it_leads_elsewhere(tmp_path):
    link = tmp_path / "current"
    assert point(link, "a")
    assert not point(link, "a")
    assert point(link, "b")
    assert str(link.readlink()) == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_json_object_reads_as_empty(text, tmp_path):
    (tmp_path / "file").write_text(text)
    assert read_json(tmp_path / "file") == {}
    assert read_json(tmp_path / "none") == {}


def test_json_is_read_as_it_was_written(tmp_path):
    write_json(tmp_path / "file", {"a": [1]}, 0o600)
    assert read_json(tmp_path / "file") == {"a": [1]}


def test_what_goes_in_the_moment_in_which_it_is_read_has_no_text(tmp_path):
    assert text_if_there(tmp_path / "gone") == ""
    with subprocess.Popen(["true"]) as process:
        path = Path("/proc", str(process.pid), "comm")
    assert text_if_there(path) == ""
