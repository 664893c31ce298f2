"""How full the disks are that an application works on; a full one is named, with what may be removed from it."""

import errno
import os
import subprocess

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import disk, host_faults
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import carry_out


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


class Module:
    """What a module says when it fails."""

    def fail_json(self, msg, **_):
        raise SystemExit(msg)


@pytest.fixture
def readonly(small):
    """A file system that the kernel has made read-only, as after an error of its disk."""
    (small / "shop.conf").write_text("port = 1\n")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    return small


def test_a_module_names_a_file_system_that_is_read_only_and_what_to_type(readonly):
    with pytest.raises(SystemExit) as told, host_faults.reported(Module()):
        write_atomically(readonly / "shop.conf", "port = 2\n")
    error, which = str(told.value).splitlines()
    assert error == f"[Errno 30] Read-only file system: '{readonly}/shop.conf'"
    assert which.startswith(f"The file system of {readonly} is read-only. Look why: dmesg | tail -n 50; then: mount")
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), str(readonly / "shop.conf"))
    assert f"mount -o remount,rw {readonly}" in disk.explain(error, "shop")


def test_a_module_names_a_full_file_system_and_what_to_type(small):
    write_until_full(small)
    with pytest.raises(SystemExit) as told, host_faults.reported(Module()):
        write_atomically(small / "shop.conf", "port = 2\n" * 10_000)
    assert str(told.value).startswith(f"[Errno 28] No space left on device: '{small}/shop.conf'\n")
    assert f"The file system of {small} is full: 100 % of 2 MB, 0.0 MB left. Look: du -xh -d2" in str(told.value)


def test_so_does_a_command_that_fails_for_it(readonly, monkeypatch):
    monkeypatch.setattr(disk, "PLACES", (readonly,))
    with pytest.raises(OperatorError, match=f"(?s)touch .+mount -o remount,rw {readonly}"):
        carry_out("touch", str(readonly / "group.lock"))


def test_every_other_error_is_what_it_was():
    error = PermissionError(errno.EACCES, "Permission denied", "/srv/shop")
    assert disk.explain(error, "shop") == host_faults.explained(error) == "[Errno 13] Permission denied: '/srv/shop'"
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
