"""A package source of somebody else's for apt: repository, key and pins, so that nothing else is taken from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically

KEYRINGS, SOURCES, PREFERENCES = "etc/apt/keyrings", "etc/apt/sources.list.d", "etc/apt/preferences.d"
HEAD = "# Written by celery-ops; changes are overwritten.\n"
PINNED = 1001
"""Above every other source, so that an upgrade of Debian takes no other version."""
NEVER = -1


def files(name: str, source: Mapping[str, Any], root: Path = Path("/")) -> dict[Path, str]:
    """Return the files that make a source known to apt, with their texts; none for no source.

    `source` has the `uris` of the repository, its `suite` and `components`, the armored `key` that has signed it, and
    the version of each package (`pins`), where names and versions may end in `*`.
    """
    if not source:
        return {}
    options = {
        "Types": "deb",
        "URIs": " ".join(source["uris"]),
        "Suites": source["suite"],
        "Components": " ".join(source.get("components") or []),
        "Signed-By": f"/{KEYRINGS}/{name}.asc",
    }
    entry = "".join(f"{option}: {value}\n" for option, value in options.items() if value)
    return {
        root / KEYRINGS / f"{name}.asc": source["key"].strip() + "\n",
        root / SOURCES / f"{name}.sources": HEAD + entry,
        root / PREFERENCES / f"{name}.pref": HEAD + "\n".join(preferences(source)),
    }


def preferences(source: Mapping[str, Any]) -> Iterator[str]:
    """Yield apt's preferences: the wanted versions of these packages, and nothing else of these hosts."""
    for package, version in source["pins"].items():
        yield preference(package, f"version {version}", PINNED)
    for host in dict.fromkeys(urlsplit(uri).hostname or "" for uri in source["uris"]):
        yield preference("*", f'origin "{host}"', NEVER)


def preference(package: str, pin: str, priority: int) -> str:
    """Return a stanza of apt's preferences."""
    return f"Package: {package}\nPin: {pin}\nPin-Priority: {priority}\n"


def changes(wanted: Mapping[Path, str]) -> dict[Path, str]:
    """Return those of the files that are not as wanted."""
    return {path: text for path, text in wanted.items() if text != (path.read_text() if path.exists() else "")}


def write(texts: Mapping[Path, str]) -> None:
    """Write these files, for everybody to read, as apt does by a user of its own."""
    for path, text in texts.items():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(path, text)


def unlike(pins: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, str]:
    """Return those of the versions, by package, that are not what the package is pinned to."""
    return {name: version for name, version in versions.items() if name in pins and not fnmatch(version, pins[name])}
