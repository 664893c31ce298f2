"""Who uses a host's Supervisor besides one application."""

from __future__ import annotations

import re
from pathlib import Path

MARK = re.compile(r"^# owner: celery-ops ([a-z0-9_]+)-", re.MULTILINE)


def programs(root: str = "/etc/supervisor") -> dict[str, set[str]]:
    """Return the files with programs, and the applications of the kit that own something in them."""
    files = sorted(path for path in Path(root, "conf.d").glob("*.conf") if path.is_file())
    found = {str(path): set(MARK.findall(path.read_text(errors="replace"))) for path in files}
    main = Path(root, "supervisord.conf")
    if main.exists() and re.search(r"^\[(program|group|eventlistener|fcgi-program):", main.read_text(), re.MULTILINE):
        found[str(main)] = set()
    return found


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
