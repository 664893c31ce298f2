"""Requirement files as pip reads them: what they include, and whether they name something of the source itself."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError

INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-[rc]))(\"[^\"]+\"|'[^']+'|\S+)")
EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)(.*)")
LINKS = re.compile(r"(?:-f|--find-links)(?:\s+|=|(?<=-f))(\S+)")
URL = re.compile(r"\S+://")
LOCKED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*===?\s*[^\s;]+.*\s--hash[=\s]")
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
ARCHIVE = (".whl", ".tar.gz", ".zip", ".tar.bz2")


def lines_of(text: str) -> Iterator[str]:
    """The logical lines of a requirement file: without comments, continued lines joined."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if line := re.sub(r"(^|\s)#.*", "", line).strip():
            yield line


def text_of(path: Path) -> str:
    """The text of a requirement file in whatever encoding pip takes it, such as PowerShell's UTF-16. Raises OSError."""
    content = path.read_bytes()
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def included(root: Path, name: str) -> dict[str, str]:
    """The texts of a requirement file and of all files that it includes, by their paths below `root`.

    Raises OperatorError for one that is not there.
    """
    found: dict[str, str] = {}
    _include((root / name).resolve(), root.resolve(), "celery_app_requirements", found)
    return found


def _include(path: Path, root: Path, by: str, found: dict[str, str]) -> None:
    if not path.is_relative_to(root):
        raise OperatorError(f"{by} names {path}, which is outside of the source. Put it into the source.")
    name = str(path.relative_to(root))
    if name in found:
        return
    try:
        found[name] = text_of(path)
    except OSError as error:
        raise OperatorError(f"{by} names {name}: {error.strerror}. Add it to the source.") from None
    for line in lines_of(found[name]):
        if (match := INCLUDE.match(line)) and not URL.match(match[1]):
            _include((path.parent / match[1].strip("'\"")).resolve(), root, name, found)


def named(line: str) -> str:
    """What a line installs, without its name, marker and options."""
    editable = EDITABLE.match(line)
    what = editable[1] if editable else line.rpartition(" @ ")[2]
    return what.split(";")[0].split(" --")[0].strip().strip("'\"")


def archives(line: str, places: list[Path]) -> Iterator[Path]:
    """The files of packages that a line takes out of the first of these directories that has what it names.

    That is the file that it installs, or all in the directory of its ``--find-links``.
    """
    links = LINKS.match(line)
    what = links[1].strip("'\"") if links else named(line)
    # Not Path.exists, which raises an exception for what is too long to be a path.
    path = next((place / what for place in places if what and os.path.exists(place / what)), None)  # noqa: PTH110
    found = path.iterdir() if links and path and path.is_dir() else filter(None, [path])
    yield from sorted(one for one in found if one.is_file() and one.name.lower().endswith(ARCHIVE))


def is_local(line: str) -> bool:
    """Whether a line installs something of the source: the project itself, another directory, a file."""
    editable, what = EDITABLE.match(line), named(line)
    if what.startswith("file:"):
        return True
    if what.startswith("-") or URL.match(what):
        return False
    return bool(editable) or what.startswith(".") or "/" in what or what.lower().endswith(ARCHIVE)


def locked(texts: dict[str, str]) -> dict[str, str] | None:
    """Return the requirements of a lock file by the packages' canonical names; None where the files are no lock file.

    In one, every line is a version with its hashes, so that pip takes it for all that there is: nothing is resolved.
    """
    found: dict[str, str] = {}
    for line in (line for text in texts.values() for line in lines_of(text)):
        include, match = INCLUDE.match(line), LOCKED.match(line)
        if include and not URL.match(include[1]):
            continue
        if not match:
            return None
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        found[name] = f"{found.get(name, '')}{' '.join(line.split())}\n"  # one line for each Python, it may be
    return found or None


def names_local(texts: dict[str, str]) -> bool:
    """Whether any of these files installs something of the source."""
    return any(is_local(line) for text in texts.values() for line in lines_of(text))
