"""How full the disks are that an application works on; a full one is named, with what may be removed from it."""

import errno
import os
import subprocess

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import disk


def write_until_full(directory):
    """Fill a file system up; return the error that its kernel raises."""
    try:
        with (directory / "filler").open("wb") as file:
            while True:
                file.write(b"0" * 65536)
                file.flush()
    except OSError as error:
        return error


@pytest.fixture
def small(tmp_path):
    """A file system of 2 MB."""
    if os.geteuid():
        pytest.skip("only root mounts a file system")
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_is_named_and_how_full_it_is(small):
    error = write_until_full(small)
    error.filename = str(small / "releases/x/app.py")
    said = disk.explain(error, "shop")
    assert f"The file system of {small} is full: 100 % of 2 MB" in said
    for part in ("A rollback needs no space", "du -sh /srv/shop/releases/*", "rm -f /var/log/shop/*.log.[0-9]*"):
        assert part in said


def test_a_command_that_found_the_disk_full_is_explained_as_well(small, monkeypatch):
    write_until_full(small)
    monkeypatch.setattr(disk, "PLACES", (small / "not/yet/there",))
    said = disk.explain("Unpacking failed.\ntar: app.py: Cannot write: No space left on device", "shop")
    assert said.startswith("Unpacking failed.") and f"The file system of {small} is full" in said


def test_every_other_error_is_what_it_was():
    error = PermissionError(errno.EACCES, "Permission denied", "/srv/shop")
    assert disk.explain(error, "shop") == "[Errno 13] Permission denied: '/srv/shop'"
    assert disk.explain("Importing shop failed.", "shop") == "Importing shop failed."


def test_each_file_system_is_looked_at_once(small, monkeypatch):
    places = (str(small), str(small / "not/yet/there"), str(small.parent), "/")
    monkeypatch.setattr(disk, "SERVICES", places)
    before = {one.path: one for one in disk.disks("shop")}
    assert len(before) == len(disk.disks("shop")) and before[str(small)].space < disk.FULL_SHARE
    write_until_full(small)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    [after] = [one for one in disk.disks("shop") if one.path == str(small)]
    assert after.space == 100 and after.readonly
