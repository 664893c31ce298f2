"""The applications in this directory as their owners deploy them; five of them as docs/your-app.md says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs/your-app.md"
RECIPE = re.compile(
    r"^### (?P<title>[^\n]+)\n(?:(?!^#).)*?^```yaml\n# groups: (?P<groups>[^\n]+)\n(?P<yaml>.*?)^```", re.M | re.S
)


def recipes() -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Groups and variables of every recipe in the docs, by its title."""
    text = DOCS.read_text(encoding="utf-8")
    return {one["title"]: (one["groups"].split(", "), yaml.safe_load(one["yaml"])) for one in RECIPE.finditer(text)}


@dataclass(frozen=True)
class App:
    """A directory of source, what its owner writes into an inventory, and what shows that it works."""

    tree: str
    debian: str
    module: str
    """The file that a new release changes, in the tree."""
    task: tuple[str, list[Any], str]
    """Name, arguments, and what its result has in it."""
    queue: str
    """Where the load is sent."""
    page: tuple[str, str] | None = None
    """Path on its web server, and what the answer has in it."""
    recipe: str = ""
    """The title of the recipe that holds groups and variables; without one they stand here."""
    groups: list[str] = field(default_factory=lambda: ["rabbitmq", "result_store", "worker"])
    variables: dict[str, Any] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    """Commands of a user, in the release's directory, and what they print."""

    @property
    def inventory(self) -> tuple[list[str], dict[str, Any]]:
        """Its groups and its variables."""
        return recipes()[self.recipe] if self.recipe else (self.groups, self.variables)

    @property
    def name(self) -> str:
        """The application's name."""
        return self.inventory[1]["celery_app_name"]


APPS = [
    App(
        "digest", "bookworm", "digest.py", ("digest.digest", ["a"], "ca978112ca1bbdcafac231b39a23dc4d"), "celery",
        recipe="Plain Celery",
    ),
    App(
        "blog", "bookworm", "posts/tasks.py", ("posts.tasks.count", ["three short words"], "3"), "celery",
        page=("/count/three%20short%20words/", "3"), recipe="Django",
    ),
    App(
        "acme", "bookworm", "services/prices/src/prices/tasks.py",
        ("prices.tasks.quote", [1999], "19.99 EUR (prices 2.1)"), "prices", page=("/quote/250", "2.50 EUR"),
        recipe="A monorepo",
    ),
    App(
        "labels", "bookworm", "src/labels/tasks.py", ("labels.label", ["cGxhaW4gd29yZHM="], "text"), "celery",
        variables={
            "celery_app_name": "labels", "celery_app_module": "labels.tasks", "celery_app_source": "labels",
            "celery_app_requirements": "requirements/production.txt", "host_packages": ["libmagic1"],
        },
        commands={"labels image/png": "picture"},
    ),
    App(
        "notes", "trixie", "notes/tasks.py", ("notes.tasks.shout", ["hello"], "HELLO (notes)"), "notes",
        page=("/shout/hello", "HELLO (notes)"), recipe="Flask",
    ),
    App(
        "quotes", "trixie", "quotes.py", ("quotes.reverse", ["abc"], "cba"), "celery",
        page=("/reverse/abc", "cba"), recipe="FastAPI",
    ),
    App(
        "press", "trixie", "press/tasks.py", ("press.tasks.mail", ["me"], "to me"), "press:render",
        groups=["rabbitmq", "result_store", "worker", "scheduler"],
        variables={
            "celery_app_name": "press", "celery_app_module": "press.app", "celery_app_source": "press",
        },
    ),
    App(
        "crawler", "trixie", "crawler.py", ("crawler.visit", [0.1], "."), "crawler",
        variables={
            "celery_app_name": "crawler", "celery_app_source": "crawler",
            "celery_worker_programs": [{"name": "default", "pool": "gevent", "concurrency": 500}],
        },
    ),
    App(
        "shop", "trixie", "shop.py", ("shop.add", [2, 3], "'sum': 5"), "shop",
        variables={
            "celery_app_name": "shop", "celery_app_source": "https://git.example/shop.git", "celery_app_version": "v1",
            "celery_app_requirements": "pyproject.toml",
            "celery_worker_programs": [
                {"name": "default", "queues": ["shop"], "concurrency": 2},
                {"name": "mail", "queues": ["mail", "bulk"], "concurrency": 4, "pool": "threads"},
                {"name": "net", "queues": ["net"], "concurrency": 20, "pool": "gevent"},
            ],
        },
    ),
]  # fmt: skip
