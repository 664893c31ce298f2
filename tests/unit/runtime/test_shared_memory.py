"""Arrays that stay in the memory of a host: what is written comes back, within bounds, and nothing stays for ever."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context

import numpy
import pytest
from celery_ops import shared_memory
from celery_ops.layout import Layout
from celery_ops.shared_memory import ResultElsewhere

ARRAY = numpy.arange(50_000, dtype=">i2").reshape(50, -1)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "memory"


@pytest.fixture
def made(place):
    assert shared_memory.identity(place)
    return place


def test_what_is_written_is_read(made):
    reference = shared_memory.write({"a": [ARRAY, ARRAY.T]}, 60, made)
    [file] = made.iterdir()
    assert (file.name, file.stat().st_size) == (reference["name"], reference["size"])
    assert file.stat().st_mode & 0o777 == 0o640
    back = shared_memory.read(reference, made)["a"]
    file.unlink()  # arrays outlive the file
    assert back[0].dtype == ARRAY.dtype and numpy.array_equal(back[0], ARRAY)
    assert back[1].flags.f_contiguous and numpy.array_equal(back[1], ARRAY.T)


def test_an_array_is_the_readers_own(made):
    reference = shared_memory.write(ARRAY, 60, made)
    back = shared_memory.read(reference, made)
    back[:] = 0
    assert numpy.array_equal(shared_memory.read(reference, made), ARRAY)


@pytest.mark.parametrize("data", [7, "x" * 100_000, numpy.arange(3), numpy.array([object()] * 100_000)])
def test_what_needs_no_file_gets_none(made, data):
    assert shared_memory.write(data, 60, made) is None
    assert not list(made.iterdir())


def test_a_file_that_has_gone_or_changed_is_said_to_be_elsewhere(made):
    reference = shared_memory.write(ARRAY, 60, made)
    path = made / reference["name"]
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(ResultElsewhere, match="content has changed"):
        shared_memory.read(reference, made)
    path.unlink()
    with pytest.raises(ResultElsewhere, match="No such file"):
        shared_memory.read(reference, made)
    with pytest.raises(ResultElsewhere):
        shared_memory.read({**reference, "name": "../memory"}, made)


def fill(place, most, answers):
    """Write until there is no more room; as one of several processes."""
    shared_memory.MOST = most
    answers.put(sum(shared_memory.write(ARRAY, 60, place) is not None for _ in range(30)))


def test_the_bound_holds_for_all_writers_together(made):
    """One file has 100 kB and a head: nine of them go into a million bytes."""
    context = get_context("fork")
    answers = context.Queue()
    writers = [context.Process(target=fill, args=(made, 10**6, answers)) for _ in range(3)]
    for writer in writers:
        writer.start()
    assert sum(answers.get(timeout=30) for _ in writers) == 9
    assert sum(file.stat().st_size for file in made.iterdir()) < 10**6


@pytest.fixture
def removed(made, monkeypatch):
    """The file of a result that its reader has removed, and what was read from it."""
    monkeypatch.setattr(shared_memory, "directory", lambda: made)
    reference = shared_memory.write(ARRAY, 60)
    inode, back = (made / reference["name"]).stat().st_ino, shared_memory.read(reference)
    shared_memory.remove(reference)
    with pytest.raises(ResultElsewhere):
        shared_memory.read(reference)
    return inode, back


@pytest.mark.parametrize("data", [ARRAY[::-1], numpy.arange(40_000), numpy.arange(400_000)], ids=len)
def test_the_next_result_takes_the_memory_of_one_that_was_removed(made, removed, data):
    reference = shared_memory.write(data, 60, made)
    [file] = made.iterdir()
    assert (file.name, file.stat().st_ino, file.stat().st_size) == (reference["name"], removed[0], reference["size"])
    assert numpy.array_equal(shared_memory.read(reference, made), data)
    assert numpy.array_equal(removed[1], ARRAY)  # the reader's own


def test_spares_count_and_give_way(made, removed, monkeypatch):
    kept, *others = [shared_memory.write(ARRAY, 60, made) for _ in range(3)]
    for other in others:
        shared_memory.remove(other)
    assert shared_memory.sweep(made) == 3 * kept["size"]
    monkeypatch.setattr(shared_memory, "MOST", 2 * kept["size"])
    assert shared_memory.write(ARRAY, 60, made)
    assert shared_memory.write(ARRAY, 60, made) is None
    assert shared_memory.sweep(made) == 2 * kept["size"]


def test_a_spare_is_kept_for_a_while(made, removed, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + shared_memory.SPARE_SECONDS - 2)
    assert shared_memory.sweep(made)
    monkeypatch.setattr(time, "time", lambda: now + shared_memory.SPARE_SECONDS + 3)
    assert shared_memory.sweep(made) == 0 and not list(made.iterdir())


def test_the_sum_is_of_the_bytes_however_they_come():
    whole = bytes(range(256)) + b"tail"
    alone = shared_memory.checksum([whole])
    for size in (1, 3, 8, 13, 255):
        assert shared_memory.checksum(whole[at : at + size] for at in range(0, len(whole), size)) == alone
    assert shared_memory.checksum([whole[:8], b"", whole[8:]]) == alone
    assert shared_memory.checksum([whole[:-1] + b"?"]) != alone


def test_a_killed_writer_leaves_nothing_beyond_the_expiry(made):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    shared_memory._write_all, kept = die, shared_memory._write_all
    try:
        child = get_context("fork").Process(target=shared_memory.write, args=(ARRAY, 0, made))
        child.start()
        child.join(30)
    finally:
        shared_memory._write_all = kept
    assert child.exitcode == -signal.SIGKILL
    [orphan] = made.iterdir()
    deadline = time.monotonic() + 20
    while shared_memory.sweep(made) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not orphan.exists()


def test_nothing_of_others_is_removed(made):
    (made / "of somebody").write_text("x")
    shared_memory.sweep(made)
    assert (made / "of somebody").exists()
    assert shared_memory.sweep(made / "missing") == 0


def test_a_directory_of_somebody_else_is_not_used(place, tmp_path):
    (tmp_path / "other").mkdir()
    place.symlink_to(tmp_path / "other")
    assert shared_memory.identity(place) == ""
    if os.geteuid() == 0:
        place.unlink()
        place.mkdir()
        os.chown(place, 65534, 65534)
        assert shared_memory.identity(place) == ""


def test_headers(monkeypatch, tmp_path):
    for name in ("CELERY_OPS_APP", "CELERY_OPS_DEFAULT_QUEUE"):
        monkeypatch.delenv(name, raising=False)
    assert shared_memory.headers() == {}  # nothing tells whose memory it would be
    monkeypatch.setattr(Layout, "memory", property(lambda self: tmp_path / f"memory-{self.app}"))
    monkeypatch.setenv("CELERY_OPS_APP", "shop")
    [(header, name)] = shared_memory.headers().items()
    assert (header, name) == ("celery_ops_disk", shared_memory.identity(tmp_path / "memory-shop"))
    assert oct((tmp_path / "memory-shop").stat().st_mode)[-3:] == "750"
    monkeypatch.setattr(shared_memory, "MOST", 0)
    assert shared_memory.headers() == {}
