"""Who uses a host's Supervisor besides one application."""

from __future__ import annotations

import configparser
import glob
import os
import re
from contextlib import suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.ini import parsed

MARK = re.compile(r"^# owner: celery-ops ([a-z0-9_]+)-", re.MULTILINE)


def programs(root: str = "/etc/supervisor") -> dict[str, set[str]]:
    """Return the files with programs, and the applications of the kit that own something in them."""
    main = Path(root, "supervisord.conf")
    text = text_of(main) if main.exists() else ""
    found_there = {path for pattern in included(text, root) for path in map(Path, glob.glob(pattern))}  # noqa: PTH207
    found = {str(path): set(MARK.findall(text_of(path))) for path in sorted(found_there) if path.is_file()}
    if re.search(r"^\[(program|group|eventlistener|fcgi-program):", text, re.MULTILINE):
        found[str(main)] = set()
    return found


def included(text: str, root: str) -> set[str]:
    """Return the patterns of the files that a configuration includes; those of conf.d in any case."""
    found = {f"{root}/conf.d/*.conf"}
    with suppress(configparser.Error):  # such a one supervisord does not read either
        found |= patterns(configuration(text), root)
    return found


def configuration(text: str) -> configparser.RawConfigParser:
    """Return a whole configuration, options without a value as well. Raises configparser.Error."""
    return parsed(text, allow_no_value=True)


def patterns(conf: configparser.RawConfigParser, root: str) -> set[str]:
    """Return the patterns of the files that a configuration in the directory `root` includes."""
    words = (conf.get("include", "files", fallback="") or "").replace("%(here)s", root).split()
    return {os.path.normpath(Path(root, each)) for each in words}


def other_programs(app: str, root: str = "/etc/supervisor") -> list[str]:
    """Return the files with programs that are not the application's."""
    found = {path: owners for path, owners in programs(root).items() if app not in owners}
    kit = sorted({owner for owners in found.values() for owner in owners})
    return [f"Supervisor: programs of application {owner}" for owner in kit] + [
        f"Supervisor: {path}" for path, owners in found.items() if not owners
    ]


def foreign_programs(root: str = "/etc/supervisor") -> list[str]:
    """Return the files with programs that no application of the kit owns."""
    return [path for path, owners in programs(root).items() if not owners]


def other_applications(app: str, srv: str = "/srv") -> list[str]:
    """Return the kit's other applications on this host: those with releases, whether they run or not."""
    found = sorted(path.parent.name for path in Path(srv).glob("*/releases") if path.is_dir())
    return [f"application {name} of this kit: {srv}/{name}/releases" for name in found if name != app]
