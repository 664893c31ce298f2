"""The kit's own content as data: roles, playbooks, tasks, tracked files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
BLOCKS = ("block", "rescue", "always")
SECTIONS = ("pre_tasks", "tasks", "post_tasks", "handlers")


def load(path: Path) -> Any:
    """What a YAML file holds; nothing for a file that isn't there."""
    return yaml.safe_load(path.read_text()) if path.exists() else None


@dataclass(frozen=True)
class Task:
    """One task, handlers included, and where it is."""

    file: Path
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}: {self.body.get('name', self.body)}"

    def uses(self, *modules: str) -> bool:
        """Tells whether it calls one of the modules, by short or full name."""
        return any(name in self.body or f"ansible.builtin.{name}" in self.body for name in modules)


def _flat(file: Path, tasks: list[dict[str, Any]] | None) -> Iterator[Task]:
    for body in tasks or []:
        inner = [body[part] for part in BLOCKS if part in body]
        if not inner:
            yield Task(file, body)
        for part in inner:
            yield from _flat(file, part)


@cache
def tasks_of(role: Path) -> list[Task]:
    """Every task and handler of a role."""
    files = sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")])
    return [task for file in files for task in _flat(file, load(file))]


@cache
def all_tasks() -> list[Task]:
    """Every task of every role and playbook."""
    plays = [
        task
        for file in PLAYBOOKS
        for play in load(file)
        for section in SECTIONS
        for task in _flat(file, play.get(section))
    ]
    return [task for role in ROLES for task in tasks_of(role)] + plays


@cache
def tracked_files() -> list[Path]:
    """Every file in git, links left out."""
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z")
    names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = [ROOT / name for name in names if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]
