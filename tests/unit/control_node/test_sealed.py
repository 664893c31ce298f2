"""A sealed file opens with its passphrase alone, and a damaged or shortened one does not open at all."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.sealed import PIECE, SealedReader, SealedWriter, SealError

PASSPHRASE = "correct horse battery staple"


def seal(path, data: bytes) -> None:
    with SealedWriter(path, PASSPHRASE) as file:
        for at in range(0, len(data), 70_001):
            file.write(data[at : at + 70_001])


def opened(path, passphrase: str = PASSPHRASE) -> bytes:
    with SealedReader(path, passphrase) as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_what_is_sealed_is_opened(tmp_path, size):
    path, data = tmp_path / "file", bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    seal(path, data)
    assert opened(path) == data
    assert path.stat().st_mode & 0o777 == 0o600
    with SealedReader(path, PASSPHRASE) as file:
        assert file.read(10) == data[:10]
        assert file.read(10) == data[10:20]


def test_it_hides_what_it_holds_and_no_two_are_alike(tmp_path):
    seal(tmp_path / "a", b"secret" * 100)
    seal(tmp_path / "b", b"secret" * 100)
    assert b"secret" not in (tmp_path / "a").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_another_passphrase_opens_nothing(tmp_path):
    seal(tmp_path / "a", b"data")
    with pytest.raises(SealError, match="passphrase is another"):
        opened(tmp_path / "a", "another one, as long")


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "drop"])
def test_a_damaged_file_opens_nothing(tmp_path, damage):
    path = tmp_path / "a"
    seal(path, b"0" * PIECE + b"1" * PIECE + b"2")
    raw = bytearray(path.read_bytes())
    head, piece = len(raw) - 2 * (PIECE + 20) - 21, PIECE + 20
    if damage == "cut":  # at the end of a piece
        raw = raw[: head + 2 * piece]
    elif damage == "flip":
        raw[-1] ^= 1
    elif damage == "swap":
        raw[head : head + piece], raw[head + piece : head + 2 * piece] = (
            raw[head + piece : head + 2 * piece],
            raw[head : head + piece],
        )
    else:
        del raw[head : head + piece]
    path.write_bytes(raw)
    with pytest.raises(SealError):
        opened(path)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), SealedWriter(tmp_path / "a", PASSPHRASE) as file:
        file.write(b"data")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_no_backup(tmp_path):
    (tmp_path / "a").write_text("hello")
    with pytest.raises(SealError, match="not a backup"):
        opened(tmp_path / "a")
