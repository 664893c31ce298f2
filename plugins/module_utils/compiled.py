"""Compile what a module imports once on a host, and not for each call.

Ansible brings a module to a host as a zip of some seventy files of source. Python compiles each of them twice there
(zipimport's `get_filename` compiles, too), which is most of what a call costs before it does anything. Every module of
the kit imports this one first: from then on a file is compiled where no call before has compiled the same text.

What it keeps is in /run/celery-ops/.compiled, which only root reads and writes: gone with a reboot, and with the kit.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import zipimport
from contextlib import suppress
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import COMPILED, KIT_STATE

MOST = 1000
"""Files that are kept; what is more is of earlier versions of the kit."""
LEAST = 16 * 2**20
"""Bytes that are left to others in /run, which may be small: leases and work under way are there as well."""


class Compiled(zipimport.zipimporter):
    """Imports from a zip as zipimport does, and looks among what was compiled before first."""

    store: Path | None = None

    def get_filename(self, fullname: str) -> str:
        """Return where a module is, without compiling it."""
        ending = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{self.archive}/{self.prefix}{fullname.rpartition('.')[2]}{ending}"

    def get_code(self, fullname: str) -> CodeType | None:
        """Return a module's code: what an earlier call has compiled of the same text, by the same Python."""
        source = self.get_source(fullname)
        if self.store is None or source is None:
            return super().get_code(fullname)
        known = hashlib.sha256(MAGIC_NUMBER + bytes([sys.flags.optimize]) + source.encode()).hexdigest()
        with suppress(OSError, ValueError, EOFError, TypeError):
            found = marshal.loads((self.store / known).read_bytes())
            if isinstance(found, CodeType):
                return found
        code = super().get_code(fullname)
        with suppress(OSError):
            keep(self.store, known, marshal.dumps(code))
        return code


def keep(store: Path, name: str, content: bytes) -> None:
    """Write a file where there is room, in one step: another call may read it. Where there are many, the others go."""
    if len(others := list(store.iterdir())) >= MOST:
        for other in others:
            other.unlink(missing_ok=True)
    seen = os.statvfs(store)
    if seen.f_bavail * seen.f_frsize >= LEAST + len(content):
        draft = store / f"{name}.{os.getpid()}"
        draft.write_bytes(content)
        draft.replace(store / name)


def store_on(host: Path, state: Path) -> Path | None:
    """Return the directory for what is compiled, made where it is missing; None where it is not to be used.

    That is where we are not root, the kit is not set up (or no longer), or somebody else could write there.
    """
    if os.geteuid() or not state.is_dir():
        return None
    with suppress(OSError):
        for path, mode in ((host.parent, 0o755), (host, 0o700)):
            if not path.is_dir():
                path.mkdir(exist_ok=True)
                path.chmod(mode)
        if all((seen := path.lstat()).st_uid == 0 and not seen.st_mode & 0o022 for path in (host.parent, host)):
            return host
    return None


def use(archive: str, store: Path | None) -> None:
    """Import what is in this zip by Compiled from now on."""
    importer = type("CompiledHere", (Compiled,), {"store": store})

    def hook(path: str) -> zipimport.zipimporter:
        if path.startswith(archive):
            return importer(path)
        raise ImportError(path)

    sys.path_hooks.insert(0, hook)
    for path in [known for known in sys.path_importer_cache if known.startswith(archive)]:
        del sys.path_importer_cache[path]


if isinstance(__loader__, zipimport.zipimporter):
    use(__loader__.archive, store_on(COMPILED, KIT_STATE))
