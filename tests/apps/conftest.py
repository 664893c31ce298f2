"""The applications of the catalog on the scenario's two hosts, each set up from an inventory of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foreign
import pytest
from catalog import APPS, HERE, App, editions
from support.control import Inventory, Run
from support.host import Host, scenario_hosts
from tried import Tried
from xdist.scheduler import LoadScopeScheduling

FULL = ("blog",)
"""What goes the whole way in CI."""
DEPLOYED = (*FULL, "prices", "notes")
"""What is deployed a second time in CI, under load."""
LATER = ("labels", "press", "crawler", "shop", "diary", "abroad", "replies")
"""Those that CI leaves out: what they have, others have as well. With CELERY_OPS_APPS=all (make apps) all go the whole
way; with CELERY_OPS_APPS=editions (make matrix) it is one small application with each supported version of Celery."""
SELECTION = os.environ.get("CELERY_OPS_APPS", "")
CHOSEN = editions() if SELECTION == "editions" else [app for app in APPS if SELECTION == "all" or app.name not in LATER]


class ByHost(LoadScopeScheduling):
    """A process for each host: its applications one after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return next(app.debian for app in CHOSEN if nodeid.endswith(f"[{app.label}]"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The scheduler that xdist takes."""
    return ByHost(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Print and keep what was tried, in the process that hears of every test."""
    if SELECTION and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tried(SELECTION))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each application."""
    if "app" in metafunc.fixturenames:
        metafunc.parametrize("app", CHOSEN, ids=[app.label for app in CHOSEN], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Application after application; the rest of the way only where it is asked for."""
    app = {one: one.callspec.params["app"] for one in items}
    if not SELECTION:
        for mark, names in (("full", FULL), ("deploy", DEPLOYED)):
            items[:] = [one for one in items if app[one].name in names or not one.get_closest_marker(mark)]
    if SELECTION == "editions":
        items[:] = [one for one in items if not one.get_closest_marker("of_the_kit")]
    needed = lambda one: (mark := one.get_closest_marker("needs")) is None or getattr(app[one], *mark.args)  # noqa: E731
    items[:] = [one for one in items if needed(one)]
    items.sort(key=lambda one: CHOSEN.index(app[one]))


@dataclass
class Deployed:
    """An application on its host."""

    app: App
    host: Host
    directory: Path
    inventory: Inventory

    def write(self, release: str, text: str = "") -> None:
        """Write a release, the source with a text added to one module, and its place into the inventory.

        It is a directory, or a git repository where the owner has one.
        """
        tree = self.directory / release
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "db.sqlite3")
        shutil.copytree(HERE / self.app.tree, tree, ignore=ignore)
        for path, added in {**self.app.files, self.app.module: text}.items():
            with (tree / path).open("a", encoding="utf-8") as file:
                file.write(added)
        source = str(tree)
        if self.app.inventory[1]["celery_app_source"].endswith(".git"):
            git = ["git", "-C", source, "-c", "user.name=t", "-c", "user.email=t@example.org"]
            for words in (["init", "-qb", "main"], ["add", "-A"], ["commit", "-qm", release], ["tag", "v1"]):
                subprocess.run([*git, *words], check=True)
            source = f"file://{tree}"
        self.inventory.set("source", celery_app_source=source)

    def play(self, name: str) -> Run:
        """Run a playbook as its owner does."""
        return self.inventory.play(name)

    def command(self, command: str) -> str:
        """What a command prints as the application's user, in its directory and environment."""
        return self.host.ask(f"timeout 60 {self.app.name} {command} 2>&1")

    def call(self, task: str, *arguments: object) -> str:
        """Send a task as a program of its owner's does; return its result."""
        code = (
            "from celery_ops.probe import load_app; "
            f"print(load_app('{self.celery}', results=True).send_task('{task}', {arguments!r}).get(timeout=20))"
        )
        return self.command(f"python -c {shlex.quote(code)}")

    def page(self, path: str) -> str:
        """What its web server answers."""
        port = self.app.inventory[1].get("celery_web_bind", "127.0.0.1:8000")
        fetch = f"import urllib.request as u; print(u.urlopen('http://{port}{path}', timeout=20).read().decode())"
        return self.host.ask(f'python3 -c "{fetch}" 2>&1')

    @property
    def celery(self) -> str:
        """What `celery -A` gets."""
        return self.app.inventory[1].get("celery_app_module", self.app.name)

    def versions(self) -> dict[str, str]:
        """The packages that decide what works, as they are installed."""
        inspected = json.loads(self.host.output(f"cat /srv/{self.app.name}/current/release.json"))["inspect"]
        return {"python": inspected["python"], **inspected["versions"]}

    def programs(self) -> dict[str, int | None]:
        """Its programs that run, and their pids."""
        return {name: pid for name, pid in self.host.running().items() if name.startswith(f"{self.app.name}-")}


@pytest.fixture(scope="session")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[App], Deployed]]:
    """What sets an application up, once, on a host that may have others already."""
    hosts = {host.name.rpartition("-")[2]: host for host in scenario_hosts()}
    done: dict[str, tuple[Deployed, Run]] = {}

    def of(app: App) -> Deployed:
        if app.label not in done:
            host, directory = Host(hosts[app.debian].name, app.name), tmp_path_factory.mktemp(app.label)
            groups, variables = app.inventory
            # Each application of a host has a database of its own in the host's Redis.
            number = [one.name for one in CHOSEN if one.debian == app.debian].index(app.name) + 1
            own = {"celery_app_result_store_database": number} if "result_store" in groups else {}
            inventory = Inventory.write(directory / "inventory", host, groups, {**variables, **own})
            deployed = Deployed(app, host, directory, inventory)
            deployed.write("first")
            if app.abroad:
                foreign.start(host.name)
            if host.run("test -e /usr/bin/python3").rc:  # as on a minimal image
                assert "This host has no Python, which site.yml installs" in inventory.play("site", "--check").words
            done[app.label] = deployed, deployed.play("site")
        deployed, run = done[app.label]
        assert run.rc == 0, run.text[-8000:]
        return deployed

    yield of
    if any(deployed.app.abroad for deployed, _ in done.values()):
        foreign.remove()


@pytest.fixture
def app(request: pytest.FixtureRequest, set_up: Callable[[App], Deployed]) -> Deployed:
    """An application on its host."""
    deployed = set_up(request.param)
    request.node.user_properties.append(("versions", deployed.versions()))
    return deployed
