"""The applications in this directory as their owners deploy them; five of them as docs/your-app.md says.

One of them, `edition`, is deployed with each supported version of Celery (tests/matrix/versions.txt) on both Debians.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import foreign
import yaml

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs/your-app.md"
VERSIONS = HERE.parent / "matrix/versions.txt"
CHORD = """
from digest import app, count_all
print(app.AsyncResult(count_all.delay(["a", "b", "a"]).get(timeout=30)).get(timeout=30), "differ")
"""
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
    about: str = ""
    """What is particular about it, for the table in the docs."""
    page: tuple[str, str] | None = None
    """Path on its web server, and what the answer has in it."""
    recipe: str = ""
    """The title of the recipe that holds groups and variables; without one they stand here."""
    groups: list[str] = field(default_factory=lambda: ["rabbitmq", "result_store", "worker"])
    variables: dict[str, Any] = field(default_factory=dict)
    """With a recipe: beside the recipe's, or in their place."""
    files: dict[str, str] = field(default_factory=dict)
    """Text that is added to the end of files of the tree."""
    commands: dict[str, str] = field(default_factory=dict)
    """Commands of a user, in the release's directory, and what they print."""
    abroad: bool = False
    """Whether its broker and its Redis are somebody else's."""
    flood: bool = False
    """Whether it is checked and deployed while 100,000 tasks wait as well."""

    @property
    def inventory(self) -> tuple[list[str], dict[str, Any]]:
        """Its groups and its variables."""
        groups, variables = recipes()[self.recipe] if self.recipe else (self.groups, {})
        return groups, {**variables, **self.variables}

    @property
    def name(self) -> str:
        """The application's name."""
        return self.inventory[1]["celery_app_name"]

    @property
    def label(self) -> str:
        """What tells it from all others: its name, and where it is deployed on both Debians that as well."""
        return f"{self.name}-{self.debian}" if self.name.startswith("edition") else self.name


def versions() -> list[str]:
    """What each line of versions.txt requires, a requirement a line."""
    lines = VERSIONS.read_text(encoding="utf-8").splitlines()
    return ["\n".join(line.split()) for line in lines if not line.startswith("#")]


APPS = [
    App(
        "digest", "bookworm", "digest.py", ("digest.digest", ["a"], "ca978112ca1bbdcafac231b39a23dc4d"), "celery",
        recipe="Plain Celery",
        commands={f"python -c {shlex.quote(CHORD)}": "2 differ"},
        about="plain Celery, nothing set",
    ),
    App(
        "blog", "bookworm", "posts/tasks.py", ("posts.tasks.count", ["three short words"], "3"), "celery",
        page=("/count/three%20short%20words/", "3"), recipe="Django",
        about="Django, django-celery-results, django-celery-beat, gunicorn",
    ),
    App(
        "acme", "bookworm", "services/prices/src/prices/tasks.py",
        ("prices.tasks.quote", [1999], "19.99 EUR (prices 2.1)"), "prices", page=("/quote/250", "2.50 EUR"),
        recipe="A monorepo",
        about="a monorepo in git, `-e .` and a local library, FastAPI, two programs",
    ),
    App(
        "labels", "bookworm", "src/labels/tasks.py", ("labels.label", ["cGxhaW4gd29yZHM="], "text"), "celery",
        variables={
            "celery_app_name": "labels", "celery_app_module": "labels.tasks", "celery_app_source": "labels",
            "celery_app_requirements": "requirements/production.txt", "celery_app_packages": ["libmagic1"],
        },
        commands={"labels image/png": "picture"},
        about="`-r`, `-c`, `-e .`, `celery_app_packages`, a command of its own",
    ),
    App(
        "notes", "trixie", "notes/tasks.py", ("notes.tasks.shout", ["hello"], "HELLO (notes)"), "notes",
        page=("/shout/hello", "HELLO (notes)"), recipe="Flask",
        about="a Flask factory, gunicorn",
    ),
    App(
        "quotes", "trixie", "quotes.py", ("quotes.reverse", ["abc"], "cba"), "celery",
        page=("/reverse/abc", "cba"), recipe="FastAPI",
        about="FastAPI, uvicorn, `task_queue_max_priority`",
    ),
    App(
        "press", "trixie", "press/tasks.py", ("press.tasks.mail", ["me"], "to me"), "press:render",
        groups=["rabbitmq", "result_store", "worker", "scheduler"],
        variables={
            "celery_app_name": "press", "celery_app_module": "press.app", "celery_app_source": "press",
        },
        about="settings in a class, declared queues (`x-max-priority`, a name with a colon), beat",
    ),
    App(
        "crawler", "trixie", "crawler.py", ("crawler.visit", [0.1], "."), "crawler",
        variables={
            "celery_app_name": "crawler", "celery_app_source": "crawler",
            "celery_worker_programs": [{"name": "default", "pool": "gevent", "concurrency": 500}],
        },
        about="gevent, 500 slots, `monkey.patch_all()` in its module, `celeryconfig.py`",
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
        about="`celery_ops.settings`, a tag in git, three programs (prefork, threads, gevent)",
    ),
    App(
        "blog", "bookworm", "posts/tasks.py", ("posts.tasks.count", ["three short words"], "3"), "celery",
        page=("/count/three%20short%20words/", "3"), recipe="Django",
        variables={"celery_app_name": "diary", "celery_app_module": "blog", "celery_web_bind": "127.0.0.1:8012"},
        files={"blog/celery.py": "\nimport celery_ops\n\ncelery_ops.apply(app)\n"},
        about="the same with `celery_ops.apply(app)`",
    ),
    App(
        "edition", "bookworm", "edition.py", ("edition.add", [2, 3], "5"), "celery",
        groups=["worker", "scheduler"], abroad=True,
        variables={
            "celery_app_name": "abroad", "celery_app_module": "edition", "celery_app_source": "edition",
            "celery_app_broker_url": foreign.BROKER, "celery_app_result_backend": foreign.RESULTS,
            "celery_app_environment": {"SSL_CERT_FILE": foreign.CA},
        },
        files={"requirements.txt": versions()[-1]},
        about="`celery_ops.apply(app)`, somebody else's RabbitMQ (`amqps://`) and Redis (`rediss://`)",
    ),
    App(
        "edition", "trixie", "edition.py", ("edition.add", [2, 3], "5"), "celery",
        groups=["rabbitmq", "worker"], flood=True,
        variables={
            "celery_app_name": "replies", "celery_app_module": "edition", "celery_app_source": "edition",
            "celery_app_result_backend": "rpc://",
        },
        files={"requirements.txt": versions()[-1]},
        about="`rpc://`; checked and deployed while 100,000 tasks wait",
    ),
]  # fmt: skip


def editions() -> list[App]:
    """The same small application for each line of versions.txt, on both Debians."""
    return [
        App(
            "edition", debian, "edition.py", ("edition.add", [2, 3], "5"), "celery",
            groups=["rabbitmq", "result_store", "worker", "scheduler"],
            variables={
                "celery_app_name": f"edition{number}", "celery_app_module": "edition", "celery_app_source": "edition",
            },
            files={"requirements.txt": requirements},
        )
        for debian in ("bookworm", "trixie")
        for number, requirements in enumerate(versions(), 1)
    ]  # fmt: skip
