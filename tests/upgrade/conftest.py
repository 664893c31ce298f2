"""A host that version 0.1 of the kit has set up, with the inventory and the secrets of that time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.control import EPHEMERAL, GROUPS, ROOT, Inventory, Variants
from support.host import Host, scenario_hosts

BEFORE = "727cefd342f436e3487a3e901c41f5b841f75546"
"""Version 0.1: the last commit before the kit became a collection."""

# More slots than two, so that the load's long tasks leave room for the short ones.
SETTINGS = {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 12}]}


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Ask the repository that this kit is a clone of; CI may run as another user than its owner."""
    return subprocess.run(["git", "-c", "safe.directory=*", *words], cwd=ROOT, capture_output=True)


def check_out(commit: str, directory: Path) -> None:
    """Put the files of a commit into a new directory; skips the test where the clone does not reach back so far."""
    archive = git("archive", commit)
    if archive.returncode and git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        pytest.skip(f"this clone is shallow and lacks {commit[:7]}; type: git fetch --unshallow")
    assert archive.returncode == 0, archive.stderr.decode()
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)


@pytest.fixture(scope="session")
def host() -> Host:
    [host] = scenario_hosts()
    return host


@pytest.fixture(scope="session")
def before(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """The inventory, used with version 0.1 of the kit; the host is set up by it."""
    top = tmp_path_factory.mktemp("upgrade")
    check_out(BEFORE, top / "kit")
    variables = {**SETTINGS, "molecule_ephemeral_directory": str(EPHEMERAL)}
    inventory = Inventory.write(top / "inventory", host, GROUPS, variables, kit=top / "kit")
    # That version's own example, for this host.
    shutil.copytree(top / "kit/molecule/shared/group_vars", top / "inventory/group_vars", dirs_exist_ok=True)
    inventory.set("source", celery_app_source=str(Variants(top / "sources", top / "kit/app").make("before")))
    site = inventory.play("site")
    assert site.rc == 0, site.text[-6000:]
    return inventory


@pytest.fixture(scope="session")
def after(before: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """The same inventory with another release of the same application, used with this version of the kit."""
    variants = Variants(tmp_path_factory.mktemp("sources"), before.kit / "app")
    before.set("source", celery_app_source=str(variants.make("after", {"petct/__init__.py": "VERSION = 2\n"})))
    return before.of(ROOT)
