"""A file that only a passphrase opens: AES-256-GCM in pieces, with a key that scrypt makes of the passphrase.

`cryptography` is all it needs, which ansible-core brings: nothing is installed for it, on no host. Without Ansible:
`python3 sealed.py FILE PASSPHRASE_FILE > backup.tar`, with Debian's python3-cryptography.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"celery-ops sealed 1\n"
SALT, PIECE = 16, 2**20
OURS = 0o600


class SealError(Exception):
    """The file is no sealed one, is damaged, or the passphrase is another."""


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    # 32 MiB and about a tenth of a second for each guess.
    return AESGCM(Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase.encode()))


def _nonce(number: int, is_last: bool) -> bytes:
    """Return a nonce that no other piece has: each file has a key of its own. The last one says so: nothing is cut."""
    return number.to_bytes(11, "big") + bytes([is_last])


class SealedWriter:
    """A binary file to write, which appears under its name, 0600, when it is complete."""

    def __init__(self, path: Path, passphrase: str) -> None:
        self.path, self.draft = path, path.with_name(f".{path.name}.new")
        salt = os.urandom(SALT)
        self.cipher, self.head, self.number, self.left = _cipher(passphrase, salt), MAGIC + salt, 0, b""
        self.draft.unlink(missing_ok=True)
        self.file: BinaryIO = os.fdopen(os.open(self.draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OURS), "wb")
        self.file.write(self.head)

    def write(self, data: bytes) -> int:
        """Add data."""
        self.left += data
        while len(self.left) > PIECE:
            self._seal(self.left[:PIECE], False)
            self.left = self.left[PIECE:]
        return len(data)

    def _seal(self, piece: bytes, is_last: bool) -> None:
        sealed = self.cipher.encrypt(_nonce(self.number, is_last), piece, self.head)
        self.file.write(struct.pack(">I", len(sealed)) + sealed)
        self.number += 1

    def close(self) -> None:
        """Complete the file."""
        self._seal(self.left, True)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.draft.replace(self.path)

    def __enter__(self) -> SealedWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.file.close()
            self.draft.unlink(missing_ok=True)


class SealedReader:
    """A sealed file to read from its beginning. Raises SealError."""

    def __init__(self, path: Path, passphrase: str) -> None:
        self.file = path.open("rb")
        self.head = self.file.read(len(MAGIC) + SALT)
        if not self.head.startswith(MAGIC) or len(self.head) < len(MAGIC) + SALT:
            raise SealError(f"{path} is not a backup of the kit")
        self.path, self.cipher = path, _cipher(passphrase, self.head[len(MAGIC) :])
        self.number, self.ready, self.is_over = 0, b"", False

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer at the end."""
        while not self.is_over and (size < 0 or len(self.ready) < size):
            self.ready += self._open()
        size = len(self.ready) if size < 0 else size
        data, self.ready = self.ready[:size], self.ready[size:]
        return data

    def _open(self) -> bytes:
        length = self.file.read(4)
        sealed = self.file.read(struct.unpack(">I", length)[0]) if len(length) == 4 else b""
        for is_last in (False, True):
            try:
                piece = self.cipher.decrypt(_nonce(self.number, is_last), sealed, self.head)
            except (InvalidTag, ValueError):
                continue
            self.number, self.is_over = self.number + 1, is_last
            return piece
        raise SealError(
            f"{self.path}: the passphrase is another, or the file is damaged or cut off (piece {self.number})"
        )

    def close(self) -> None:
        """Close it."""
        self.file.close()

    def __enter__(self) -> SealedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":
    with SealedReader(Path(sys.argv[1]), Path(sys.argv[2]).read_text().strip()) as opened:
        while data := opened.read(PIECE):
            sys.stdout.buffer.write(data)
