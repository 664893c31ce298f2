"""The kit's modules as Ansible packs them for a host, kept from run to run on the control node.

Ansible parses some seventy files for each module of each run, a fifth of a second each. It looks for what it has packed
in the run's own temporary directory: what an earlier run has packed of the same files is put there.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from ansible import constants as C
from ansible import module_utils
from ansible.plugins.loader import module_utils_loader
from ansible.release import __version__
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SECRET_FILE

PLUGINS = Path(__file__).resolve().parents[1]
OURS = ("ansible_collections.celery_ops.kit.", "ansible.modules.")
"""Of these it is known when they change: with the kit, or with Ansible's version."""
KEPT = 10  # versions of the kit


@cache
def keep_packed_modules() -> None:
    """Give this run what earlier ones have packed, and keep what it packs when it ends. Never fails."""
    with suppress(OSError):
        run, store = Path(C.DEFAULT_LOCAL_TMP, "ansiballz_cache"), store_of(PLUGINS)
        if not is_private(store):
            return
        run.mkdir(parents=True, exist_ok=True)
        restore(store, run)
        atexit.register(keep, store, run, os.getpid())


def store_of(plugins: Path) -> Path:
    """Return the directory for what is packed of these plugins by this Ansible and this Python; make it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or C.config.get_config_value("ANSIBLE_HOME")).expanduser()
    store = home / "celery-ops/modules" / version_of(plugins)
    store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store.mkdir(mode=0o700, exist_ok=True)
    return store


def version_of(plugins: Path) -> str:
    """Return a hash of everything that goes into a packed module."""
    found = hashlib.sha256(f"{__version__} {sys.version}".encode())
    for path in sorted([*plugins.glob("modules/*.py"), *plugins.glob("module_utils/**/*.py")]):
        found.update(f"{path.relative_to(plugins)} ".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def is_private(store: Path) -> bool:
    """Whether nobody else can write there: Ansible runs what it reads."""
    return all(
        (found := path.stat()).st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for path in (store, store.parent)
    )


def is_shadowed() -> bool:
    """Whether a directory beside a playbook or in a role may replace parts of Ansible that modules are packed with."""
    places = {Path(path) for path in module_utils_loader._get_paths(subdirs=False)}
    return any(path.is_dir() for path in places - set(map(Path, module_utils.__path__)))


def packed(directory: Path) -> Iterator[Path]:
    """Yield the packed modules in a directory. A name ends in the debugger that they are for."""
    for path in directory.glob("*-none"):
        if path.name.startswith(OURS):
            yield path


def restore(store: Path, run: Path) -> None:
    """Give the run what there is, under names of its own: another run may forget this version meanwhile."""
    if is_shadowed():
        return
    os.utime(store)
    for path in packed(store):
        try:
            (run / path.name).hardlink_to(path)
        except OSError:  # on another disk
            write_atomically(run / path.name, path.read_bytes(), SECRET_FILE)


def keep(store: Path, run: Path, process: int) -> None:
    """Keep what this process, and no child of it, has had packed; forget the oldest versions."""
    if os.getpid() != process or is_shadowed():
        return
    with suppress(OSError):
        for path in packed(run):
            if (store / path.name).exists():
                continue
            write_atomically(store / path.name, path.read_bytes(), SECRET_FILE)
        versions = sorted(store.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in versions[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
