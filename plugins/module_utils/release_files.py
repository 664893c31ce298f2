"""The files of a release on a host: unpacked from its archive, and compared with what was unpacked."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import run
from ansible_collections.celery_ops.kit.plugins.module_utils.files import point, write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import GUARD, RENAMED_COMMANDS, Release
from ansible_collections.celery_ops.kit.plugins.module_utils.listeners import put

COMMANDS_RAN = ".commands-ran"
"""In a release: its build commands were run in it."""
FILES, RUNTIME_FILES = ".files.json", ".runtime.json"
"""In a release: what its source and its runtime hold, by name: a file's size, or a link's target."""
KEPT_TIME = 0
"""Every packed file's modification time: one that has another was changed on the host."""
COMMAND = """#!{release}/venv/bin/python
import sys

sys.path[0] = "{release}/runtime"
from celery_ops.cli.{module} import main

main()
"""


def unpack(archive: Path, release: Path, user: str) -> None:
    """Bring the source and the runtime to what the archive holds.

    File by file: a program may run from there.
    """
    fresh = release / ".unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(fresh)], "Unpacking", "", {}, 300)
    source = Release(fresh).source
    for path in (source / name for name in files_of(source)):
        if not path.is_symlink() and not path.stat().st_mode & 0o004:  # a key, or alike
            os.chown(path, 0, pwd.getpwnam(user).pw_gid)
    if not (release / source.name).is_dir():
        (release / COMMANDS_RAN).unlink(missing_ok=True)
    bring(source, release / source.name, release / FILES)
    if (fresh / "runtime").is_dir():
        bring(fresh / "runtime", release / "runtime", release / RUNTIME_FILES)
    if (fresh / "app").is_symlink():
        point(release / "app", str((fresh / "app").readlink()))
    for path in [*fresh.glob("*.whl"), *fresh.glob("*.txt")]:
        path.replace(release / path.name)
    shutil.rmtree(fresh)
    archive.unlink(missing_ok=True)


def bring(source: Path, target: Path, listing: Path) -> None:
    """Move what `target` lacks, or has otherwise, out of `source`; write down what belongs there."""
    files = files_of(source)
    if target.is_dir():
        for name in files:
            if not is_whole(target / name, files[name]):
                put(source / name, target / name)
    else:
        put(source, target)
    write_atomically(listing, json.dumps(files))


def write_commands(release: Path) -> None:
    """Write the kit's commands into bin/: one for each module of `celery_ops.cli`, or links to what 0.1 installed."""
    bin_dir, modules = release / "bin", sorted((release / "runtime/celery_ops/cli").glob("[!_]*.py"))
    bin_dir.mkdir(exist_ok=True)
    for module in modules:
        path = bin_dir / f"celery-ops-{module.stem.replace('_', '-')}"
        text = COMMAND.format(release=release, module=module.stem)
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text, 0o755)
    if not modules:
        new_names = {old: new for new, old in RENAMED_COMMANDS.items()}
        for command in (release / "venv/bin").glob("celery-ops-*"):
            point(bin_dir / new_names.get(command.name, command.name), f"../venv/bin/{command.name}")


def package_of(release: Path) -> Path:
    """Return where a release has `celery_ops`; one that 0.1 built has it in its virtualenv."""
    in_virtualenv = (release / "venv").glob("lib/python3*/site-packages/celery_ops")
    own = release / "runtime/celery_ops"
    return own if own.is_dir() else next(in_virtualenv, own)


def wheel_of(release: Path) -> Path | None:
    """Return the wheel of the runtime in a release that 0.1 packed; None in any other."""
    return next(release.glob("*.whl"), None)


def files_of(directory: Path) -> dict[str, int | str]:
    """Return the sizes of packed files and the targets of links below a directory, by name."""
    found: dict[str, int | str] = {}
    for root, directories, names in os.walk(directory):
        here = Path(root)
        for path in (here / name for name in [*names, *directories]):
            if path.is_symlink():
                found[str(path.relative_to(directory))] = str(path.readlink())
            elif path.is_file() and int(path.stat().st_mtime) == KEPT_TIME:
                found[str(path.relative_to(directory))] = path.stat().st_size
    return found


def is_whole(path: Path, expected: int | str) -> bool:
    """Whether a file or link is as it was unpacked."""
    try:
        if isinstance(expected, str):
            return str(path.readlink()) == expected
        found = path.lstat()
    except OSError:
        return False
    return found.st_size == expected and int(found.st_mtime) == KEPT_TIME and path.is_file() and not path.is_symlink()


def damaged_files(release: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a release."""
    files = Release(release)
    if not files.app.is_dir():
        yield "its app/ is missing"
    else:
        yield from _changed(files.source, release / FILES)
    if wheel_of(release) is None:
        yield from _changed(release / "runtime", release / RUNTIME_FILES)
        if not files.command(GUARD).exists():
            yield "its bin/ is missing"


def _changed(top: Path, listing: Path) -> Iterator[str]:
    if not listing.exists():
        yield f"its list of the files in {top.name}/ is missing"
        return
    expected = json.loads(listing.read_text())
    changed = [name for name in expected if not is_whole(top / name, expected[name])]
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        yield f"{top.name}/{changed[0]}{more} is missing or was changed"
