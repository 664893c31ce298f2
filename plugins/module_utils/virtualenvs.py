"""The virtualenvs of an application: shared by content, so that a change of code alone installs nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError, run
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json, write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import DIRECTORY, Release
from ansible_collections.celery_ops.kit.plugins.module_utils.release_files import files_of, wheel_of
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import (
    archives,
    included,
    lines_of,
    locked,
    names_local,
)

INSTALL_TIMEOUT = 1800.0  # seconds

PIP_ENVIRONMENT = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_USER": "0",
    "GIT_TERMINAL_PROMPT": "0",
}

LOCK = ".lock.json"
"""In a virtualenv, the lock file that was installed into it, by packages."""

TOOLS = {"pip", "setuptools", "wheel"}
"""Packages that work on a virtualenv from inside it."""


class Releases(Protocol):
    """What is needed of the module's releases: their directories and notes."""

    base: Path
    directory: Path

    def note(self, release: str) -> dict[str, Any]:
        """What release.json says."""

    def write_note(self, release: str, **changes: Any) -> None:
        """Change release.json."""

    def good(self) -> list[str]:
        """Good releases, the newest first."""


def requirement_files(release: Path, name: str) -> list[Path]:
    """The files that pip is given: made on the control node, or the application's own."""
    made = [path for path in (release / "requirements.txt", release / "project.txt") if path.exists()]
    return made or [release / "app" / name]


def requirement_texts(release: Path, name: str) -> dict[str, str]:
    """The texts of all requirement files, and of those that they include. Raises ReleaseError."""
    found: dict[str, str] = {}
    try:
        for path in requirement_files(release, name):
            root = Release(release).source if path.is_relative_to(release / "app") else release
            found |= included(root, str(path.resolve().relative_to(root.resolve())))
    except OperatorError as error:
        raise ReleaseError(str(error), release_fault=True) from None
    return found


def virtualenv(releases: Releases, release: Path, options: dict[str, Any]) -> Path:
    """The virtualenv for these requirements and this Python; made if it is not there, or not whole.

    One that something of the source is installed into is the release's own. A damaged one stays where it is while a
    release or a program uses it: the new one has a name beside.
    """
    texts = requirement_texts(release, options["requirements"])
    python = options["python"]
    version = run([python, "-VV"], f"{python} -VV", "Set celery_app_python to a Python 3.11 or newer.", {}, 30)
    wheel = wheel_of(release)
    common = [*texts.items(), version, os.uname().machine, *vendored(release, texts)]
    if wheel:  # of a release that 0.1 packed, whose runtime is installed with the rest
        common.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    local, lock = names_local(texts), locked(texts)
    identity, kind = json.dumps([*common, release.name] if local else common), json.dumps([*common, *projects(release)])
    stem, kind = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (identity, kind))
    directory = releases.base / "venvs"
    directory.mkdir(exist_ok=True)
    directory.chmod(DIRECTORY)
    there = [path for path in sorted(directory.iterdir()) if stem_of(path) == stem]
    for venv in there:
        if not list(damaged_virtualenv(venv)):
            return venv
    linked = {link.resolve() for link in releases.directory.glob("*/venv")}
    for venv in there:
        if venv.resolve() not in linked and not runs_from(venv):
            shutil.rmtree(venv, ignore_errors=True)
    names = [stem, *(f"{stem}-{number}" for number in range(1, 1 + len(there)))]
    venv = next(path for path in (directory / name for name in names) if not path.exists())
    try:
        if local and (old := alike(directory, kind)):
            clone(old, venv)
        elif lock and not wheel and (near := nearest(directory, lock, version)):
            clone(near[0], venv)
            uninstall(venv, near[1])
        install(venv, release, options)
    except ReleaseError:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    if lock:
        write_json(venv / LOCK, {"python": version, "requirements": lock})
    (venv / ".complete").write_text(kind)
    return venv


def nearest(directory: Path, lock: dict[str, str], python: str) -> tuple[Path, list[str]] | None:
    """The newest whole virtualenv that a lock file was installed into, and what of it this lock has not, or otherwise.

    The rest of it is what pip would install anew: same version, same hashes. pip itself is never exchanged in a clone.
    """
    for path in sorted(directory.glob(f"*/{LOCK}"), key=lambda path: path.stat().st_mtime, reverse=True):
        known = read_json(path)
        old = known.get("requirements", {})
        others = sorted(name for name, text in old.items() if lock.get(name) != text)
        if known.get("python") == python and TOOLS.isdisjoint({*others, *(set(lock) - set(old))}):
            return (path.parent, others) if not list(damaged_virtualenv(path.parent)) else None
    return None


def uninstall(venv: Path, names: list[str]) -> None:
    """Remove packages from a virtualenv; one that is not there, as it is for another Python, is no error."""
    if names:
        command = [str(venv / "bin/pip"), "uninstall", "--yes", "--quiet", *names]
        run(command, "Removing what the lock file changes", "", PIP_ENVIRONMENT, INSTALL_TIMEOUT)


def alike(directory: Path, kind: str) -> Path | None:
    """The newest virtualenv of this kind that is whole."""
    known = sorted(directory.glob("*/.complete"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = (path.parent for path in known if path.read_text() == kind)
    return next((venv for venv in found if not list(damaged_virtualenv(venv))), None)


def projects(release: Path) -> list[str]:
    """The texts that say what the projects of a source require."""
    top = Release(release).source
    names = [name for name in files_of(top) if name.rpartition("/")[2] in ("pyproject.toml", "setup.py", "setup.cfg")]
    return [(top / name).read_text(errors="replace") for name in sorted(names) if (top / name).is_file()]


def vendored(release: Path, texts: dict[str, str]) -> list[tuple[str, str]]:
    """The packages that requirement files take from the source, with their digests: pip goes by the version alone."""
    source, app = Release(release).source.resolve(), (release / "app").resolve()
    found = {
        path.resolve()
        for name, text in texts.items()
        for line in lines_of(text)
        for path in archives(line, [(source / name).parent, app])
    }
    return [
        (str(path.relative_to(source)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(found)
        if path.is_relative_to(source)
    ]


def clone(old: Path, new: Path) -> None:
    """Make a virtualenv out of another release's with the same requirements: pip then installs the projects alone.

    Its files are the same ones on the disk; pip never writes into a file, it makes a new one.
    """
    run(["cp", "-al", str(old), str(new)], "Copying the virtualenv", "", {}, INSTALL_TIMEOUT)
    for name in (".complete", LOCK):
        (new / name).unlink(missing_ok=True)
    for path in [*(new / "bin").iterdir(), new / "pyvenv.cfg"]:
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if str(old).encode() in text:
            mode = path.stat().st_mode & 0o777
            path.unlink()  # the other release has the same file
            path.write_bytes(text.replace(str(old).encode(), str(new).encode()))
            path.chmod(mode)


def stem_of(venv: Path) -> str:
    """What all virtualenvs for the same content begin with."""
    return venv.name.partition("-")[0]


def install(venv: Path, release: Path, options: dict[str, Any]) -> None:
    """Make a virtualenv and install into it. Raises ReleaseError."""
    given = {key: str(value) for key, value in json.loads(options["install_environment"] or "{}").items()}
    environment = {**given, **PIP_ENVIRONMENT}
    if given.get("PIP_RETRIES") == "0":
        # Without a retry pip does not say that an index can't be reached, only that it finds nothing.
        environment["PIP_RETRIES"] = "1"
    if not venv.exists():
        run(
            [options["python"], "-m", "venv", str(venv)], "Making the virtualenv",
            "Debian's python3-venv has to be installed: apt-get install python3-venv", {}, INSTALL_TIMEOUT,
        )  # fmt: skip
    # The script, in the application's directory: with -m, a module there would be imported instead of Python's own.
    pip = [str(venv / "bin/pip"), "install", "--progress-bar", "off"]
    for path in requirement_files(release, options["requirements"]):
        run(
            [*pip, *(["--no-deps"] if path.name == "project.txt" else []), "-r", str(path)],
            f"Installing {options['requirements']}",
            "Fix the file, or reach the index: celery_app_install_environment (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY).",
            environment, INSTALL_TIMEOUT, of_release=True, directory=release / "app",
        )  # fmt: skip
    if not (venv / "bin/celery").exists():
        raise ReleaseError(
            f"{options['requirements']} does not bring celery. Add it, at the version you want.", release_fault=True
        )
    if wheel := wheel_of(release):
        command = [*pip, "--no-deps", "--no-index", str(wheel)]
        run(command, "Installing the kit's runtime", "", environment, INSTALL_TIMEOUT)


def runs_from(venv: Path) -> bool:
    """Whether a process runs from a virtualenv: its command line or its environment names it."""
    name = f"{venv.resolve()}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "environ"):
            try:
                if name in (process / file).read_bytes().replace(b"\0", b"/"):
                    return True
            except OSError:
                continue
    return False


def damaged_virtualenv(venv: Path) -> Iterator[str]:
    """What is wrong with a virtualenv: cheap enough to ask before each deploy."""
    if not (venv / ".complete").exists():
        yield "its virtualenv is missing or incomplete"
        return
    if not is_readable(venv):
        yield f"{venv.resolve()}: the application's user can't read it"
        return
    for site in venv.glob("lib/python3*/site-packages"):
        missing = [name for record in site.glob("*.dist-info/RECORD") for name in _missing(site, record)]
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            yield f"{venv.resolve()}: {missing[0]}{more} is missing or empty"
            return
    try:
        run([str(venv / "bin/python"), "-I", "-c", "import celery"], "The virtualenv", "", {}, 30)
    except ReleaseError as error:
        yield f"{venv.resolve()}: {str(error).splitlines()[-1]}"


def has_lost_its_python(venv: Path) -> bool:
    """Whether the Python that a virtualenv was made with is gone or another version by now (Debian was upgraded)."""
    made_with = list(venv.glob("lib/python3.*"))
    python = venv / "bin/python"
    if not made_with or not python.exists():
        return bool(made_with)
    version = re.fullmatch(r"python\d+\.\d+", python.resolve().name)
    return bool(version) and version[0] not in {path.name for path in made_with}


def is_readable(venv: Path) -> bool:
    """Whether the application's user can use a virtualenv: the kit once made them under the login's umask."""
    paths = [venv, venv / "bin", *venv.glob("bin/celery*"), *venv.glob("lib/python*/site-packages/celery")]
    return all(path.stat().st_mode & 0o005 == 0o005 for path in paths)


def _missing(site: Path, record: Path) -> Iterator[str]:
    """Files of an installed package that are gone, or empty and were not: what a full or broken disk leaves."""
    with record.open(newline="", encoding="utf-8", errors="replace") as lines:
        for row in csv.reader(lines):
            if len(row) < 3 or row[0].endswith(".pyc"):
                continue
            try:
                size = os.stat(f"{site}/{row[0]}").st_size  # noqa: PTH116 thousands of them
            except OSError:
                yield row[0]
            else:
                if size == 0 and row[2] not in ("", "0"):
                    yield row[0]


def prune_virtualenvs(base: Path, linked: set[Path], used: str) -> None:
    """Remove virtualenvs that no release links to, `used` does not name and no process runs from."""
    for venv in (base / "venvs").iterdir():
        if venv.resolve() not in linked and venv.name not in used and not runs_from(venv):
            shutil.rmtree(venv)
