"""What to install for a pyproject.toml or a lock file: a requirement file's text, made on the control node."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import is_local, lines_of

LOCKS = {
    "uv.lock": ["uv", "export", "--frozen", "--no-dev", "--no-emit-project", "--format", "requirements-txt"],
    "poetry.lock": ["poetry", "export", "--no-interaction", "--only", "main", "--format", "requirements.txt"],
    "pdm.lock": ["pdm", "export", "--prod", "--format", "requirements"],
}
"""The export of the tool that wrote a lock file; extras and groups follow."""
TIMEOUT = 120
RELATIVE = re.compile(r"((?:-e|--editable)(?:\s+|=))?(\.{1,2}(?:/[^\s;\[]*)?)(?=[\s;\[]|$)")
"""A line that installs a directory or file of the source."""

REQUIREMENTS = ("requirements.txt", *LOCKS, "pyproject.toml")
"""Names by which requirements are known, the most exact first."""
BY_NAME = re.compile(r"(requirements|reqs?)([-_./][^/]*)?\.(txt|in)")
MADE_WITH = {
    "Pipfile.lock": "type, in the source: pipenv requirements > requirements.txt",
    "Pipfile": "type, in the source: pipenv lock && pipenv requirements > requirements.txt",
    "setup.py": "write a file requirements.txt with the line: -e .",
    "setup.cfg": "write a file requirements.txt with the line: -e .",
    "pylock.toml": "type, in the source: uv export --format requirements-txt > requirements.txt (or pdm export)",
    "environment.yml": "write a file requirements.txt with what pip is to install: celery[redis], ...",
}
"""Files that say what a project needs, and that pip does not read: how to make one that it reads."""


def there_instead(names: Iterable[str]) -> list[str]:
    """Which of an application's files pip reads for requirements, the likeliest first."""
    found = set(names)
    known = [name for name in REQUIREMENTS if name in found]
    return known + sorted((name for name in found - set(known) if BY_NAME.fullmatch(name)), key=lambda name: (
        "prod" not in name, "dev" in name or "test" in name, name,
    ))  # fmt: skip


def how_to_make(names: Iterable[str]) -> str:
    """What to do where no file has a form that pip reads."""
    found = set(names)
    how = next((how for name, how in MADE_WITH.items() if name in found), MADE_WITH["environment.yml"])
    return f"{how[0].upper()}{how[1:]}"


def refuse_foreign(name: str) -> None:
    """Raise OperatorError for a file that pip would take for a list of requirements, and that is none."""
    kind = Path(name).name
    kind = "pylock.toml" if re.fullmatch(r"pylock(\..*)?\.toml", kind) else kind
    kind = "environment.yml" if kind.endswith((".yml", ".yaml")) else kind
    if kind in MADE_WITH:
        raise OperatorError(
            f"celery_app_requirements is {name}: pip reads no requirements from it. {how_to_make([kind])}; commit that "
            "file, and write: celery_app_requirements: requirements.txt"
        )


def requirements_of(source: Path, directory: Path, name: str, extras: list[str]) -> dict[str, str]:
    """Texts of the requirement files to make, `requirements.txt` and `project.txt`; none for a plain requirements file.

    `project.txt` is installed without its dependencies, after the other. The application is in `directory`, in or below
    `source`. Raises OperatorError.
    """
    refuse_foreign(name)
    path = directory / name
    if path.name in LOCKS:
        project = _read(path.with_name("pyproject.toml"))
        lines = [_below(source, directory, path.parent, line) for line in lines_of(_export(path, project, extras))]
        # Beside a hash pip takes no directory, and what is in the source is part of the release.
        local = [re.sub(r"\s--hash[=\s]\S+", "", line) for line in lines if is_local(line)]
        local += [f"-e {_seen_from(directory, path.parent)}"] if _is_package(project) else []
        texts = {"requirements.txt": [line for line in lines if not is_local(line)], "project.txt": local}
        return {file: "\n".join(wanted) + "\n" for file, wanted in texts.items() if wanted}
    if path.suffix == ".toml":
        lines = _project_lines(name, _seen_from(directory, path.parent), _read(path), extras)
        return {"requirements.txt": "\n".join(lines) + "\n"}
    if extras:
        raise OperatorError(
            f"celery_app_extras is {extras}, and celery_app_requirements is {name}: only a pyproject.toml or a lock "
            f"file has extras and groups. Write them into {name}, or leave celery_app_extras out."
        )
    return {}


def _seen_from(directory: Path, path: Path) -> str:
    """Return a path of the source as pip takes it in the application's directory, where it is run."""
    relative = os.path.relpath(path, directory)
    return relative if relative == "." else f"./{relative}"


def _below(source: Path, directory: Path, project: Path, line: str) -> str:
    """Return a line with the path that a directory or file of the source has on every host, seen from `directory`.

    poetry export writes where it is on the control node; pdm export, ``${PROJECT_ROOT}`` in place of that; uv export,
    where it is seen from the directory of the lock file, `project`.
    """
    top, here, at = source.resolve(), directory.resolve(), project.resolve()
    if relative := RELATIVE.match(line):
        return f"{relative[1] or ''}{_seen_from(here, at / relative[2])}{line[relative.end() :]}"
    given = re.search(r"(?:([\w.-]+)\s*(\[[^\]]*\])?\s*@\s*)?file://([^\s;#]+)(?:#egg=[^\s;]*)?", line)
    path = Path(unquote(given[3]).replace("/${PROJECT_ROOT}", str(at))).resolve() if given else None
    if not given or not path.is_relative_to(top):
        return line
    return f"{line[: given.start()]}{_seen_from(here, path)}{given[2] or ''}{line[given.end() :]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        if text.startswith("\ufeff"):
            raise OperatorError(
                f"celery_app_requirements: {path.name} begins with a byte order mark (BOM), which pip does not read. "
                f"Type, in the source: sed -i '1s/^\\xEF\\xBB\\xBF//' {path.name}"
            )
        return tomllib.loads(text)
    except ValueError as error:  # no TOML, or no UTF-8
        raise OperatorError(f"celery_app_requirements: {path.name}: {error}") from None
    except OSError as error:
        raise OperatorError(f"celery_app_requirements: {path.name}: {error.strerror}. Add it to the source.") from None


def _is_package(project: dict[str, Any]) -> bool:
    """Whether the project itself can be installed."""
    poetry = project.get("tool", {}).get("poetry", {})
    return "build-system" in project and poetry.get("package-mode", True)


def _named(project: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The extras and the dependency groups of a project."""
    poetry = project.get("tool", {}).get("poetry", {})
    extras = {**project.get("project", {}).get("optional-dependencies", {}), **poetry.get("extras", {})}
    return extras, {**project.get("dependency-groups", {}), **poetry.get("group", {})}


def _refuse_unknown(name: str, project: dict[str, Any], wanted: list[str]) -> None:
    extras, groups = _named(project)
    for one in wanted:
        if one not in extras and one not in groups:
            there = ", ".join([*extras, *groups]) or "none"
            raise OperatorError(
                f"celery_app_extras has {one}: {name} has no such extra or dependency group; available: {there}. "
                f"Write: celery_app_extras: [{there}]"
            )


def _project_lines(name: str, place: str, project: dict[str, Any], wanted: list[str]) -> list[str]:
    """The lines for a pyproject.toml; `place` is its directory, for pip."""
    _refuse_unknown(name, project, wanted)
    extras, groups = _named(project)
    own = [one for one in wanted if one in extras]
    lines = [line for one in wanted if one not in extras for line in _group(name, one, groups)]
    if _is_package(project):
        # pip asks the project's own build backend for the dependencies, whatever form they have.
        return [f"-e {place}[{','.join(own)}]" if own else f"-e {place}", *lines]
    static = project.get("project", {})
    if "dependencies" in static.get("dynamic", []):
        raise OperatorError(
            f"celery_app_requirements: {name}: its dependencies are dynamic, and it has no [build-system] that could "
            "tell them. Lock them into a requirements.txt, and write: celery_app_requirements: requirements.txt"
        )
    if "dependencies" not in static and "poetry" in project.get("tool", {}):
        raise OperatorError(
            f"celery_app_requirements: {name}: its dependencies are in [tool.poetry], which pip reads only through a "
            "[build-system]. Type, in the source: poetry lock; and write: celery_app_requirements: poetry.lock"
        )
    return [*static.get("dependencies", []), *(line for one in own for line in extras[one]), *lines]


def _group(name: str, group: str, groups: dict[str, Any]) -> Iterator[str]:
    """The lines of a dependency group, of those that it includes as well."""
    found = groups.get(group)
    if not isinstance(found, list):
        raise OperatorError(
            f"celery_app_extras has {group}: {name} has it in [tool.poetry.group], which pip can't read. "
            "Type, in the source: poetry lock; and write: celery_app_requirements: poetry.lock"
        )
    for line in found:
        if isinstance(line, dict):
            yield from _group(name, str(line.get("include-group")), groups)
        else:
            yield line


def _export(path: Path, project: dict[str, Any], wanted: list[str]) -> str:
    """The requirements of a lock file, by the tool that wrote it. Raises OperatorError."""
    _refuse_unknown("pyproject.toml", project, wanted)
    command = list(LOCKS[path.name])
    extras, _ = _named(project)
    for one in wanted:
        if path.name == "pdm.lock":
            command += ["--group", one]
        elif path.name == "uv.lock":
            command += ["--extra" if one in extras else "--group", one]
        elif one in extras:
            command += ["--extras", one]
        else:
            command[command.index("main")] += f",{one}"
    instead = f"{shlex.join(command)} > requirements.txt"
    if not shutil.which(command[0]):
        raise OperatorError(
            f"celery_app_requirements is {path.name}, and {command[0]} is not on the control node. Install it there; "
            f"or type, in the source: {instead}; commit that file, and write: celery_app_requirements: requirements.txt"
        )
    try:
        done = subprocess.run(
            command, cwd=path.parent, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OperatorError(f"{shlex.join(command)} did not end within {TIMEOUT} s.") from None
    if done.returncode:
        said = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-15:])
        raise OperatorError(f"{shlex.join(command)} failed on the control node:\n{said}")
    return done.stdout
