"""A host that the kit before this version has set up, with the inventory and the secrets of that time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/deploy"), str(ROOT / "tests/chaos")]

from lab import LEDGER, Run, Variants  # noqa: E402
from subject import Subject  # noqa: E402

BEFORE = "b45541f92c9fae6a46eba601682e4a2788b933b8"
"""The last commit before deployment records, /run/celery-ops and listeners in versions."""

GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")
# More slots than two, so that the load's long tasks leave room for the short ones.
SETTINGS = {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 12}]}


@dataclass(frozen=True)
class Kit:
    """A version of the kit in a folder, an operator's inventory, and the application to deploy."""

    folder: Path
    inventory: Path
    source: Path

    def play(self, name: str, **variables: Any) -> Run:
        """Run one of its playbooks as an operator does."""
        ephemeral = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
        variables = {
            **SETTINGS,
            "celery_app_secrets_dir": f"{ephemeral}/secrets",
            "celery_app_source": str(self.source),
            **variables,
        }
        begun = time.monotonic()
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.inventory), "-e", json.dumps(variables), f"playbooks/{name}.yml"],
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - begun)


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Ask the repository that this kit is a clone of; CI may run as another user than its owner."""
    return subprocess.run(["git", "-c", "safe.directory=*", *words], cwd=ROOT, capture_output=True)


def check_out(commit: str, folder: Path) -> None:
    """Put the files of a commit into a new folder; skips the test where the clone does not reach back so far."""
    archive = git("archive", commit)
    if archive.returncode and git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        pytest.skip(f"this clone is shallow and lacks {commit[:7]}; type: git fetch --unshallow")
    assert archive.returncode == 0, archive.stderr.decode()
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)


@pytest.fixture(scope="session")
def host() -> Subject:
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/upgrade needs the host of a molecule scenario; type: make molecule")
    [platform] = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return Subject(platform["name"])


@pytest.fixture(scope="session")
def before(host: Subject, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The kit before this version; the host is set up by it."""
    top = tmp_path_factory.mktemp("upgrade")
    check_out(BEFORE, top / "kit")
    # The inventory stays the same afterwards: that version's own example, for this host.
    inventory = top / "inventory"
    shutil.copytree(top / "kit/molecule/shared/group_vars", inventory / "group_vars")
    there = {host.name: {"ansible_connection": "community.docker.docker"}}
    children = {group: {"hosts": {host.name: None}} for group in GROUPS}
    variables = {"molecule_ephemeral_directory": os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]}
    (inventory / "hosts.yml").write_text(json.dumps({"all": {"hosts": there, "children": children, "vars": variables}}))
    source = Variants(top / "sources", top / "kit/app").make("before")
    kit = Kit(top / "kit", inventory, source)
    # That version knew no way to start Redis where a container can't sandbox it: whoever used it had this.
    unit = "/etc/systemd/system/redis-server.service.d"
    sandbox = f"mkdir -p {unit} && printf '[Service]\\nPrivateUsers=no\\n' > {unit}/container.conf"
    subprocess.run(["docker", "exec", host.name, "sh", "-c", f"{sandbox} && systemctl daemon-reload"], check=True)
    # That version takes a page's 202, "ask again", for a failure: on a busy machine it may be the first answer.
    site = kit.play("site", celery_app_prove_url="")
    assert site.rc == 0, site.text[-6000:]
    subprocess.run(["docker", "cp", str(ROOT / "tests/chaos/ledger.py"), f"{host.name}:{LEDGER}"], check=True)
    return kit


@pytest.fixture(scope="session")
def after(before: Kit, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """This version, with the same inventory and another release of the application."""
    source = Variants(tmp_path_factory.mktemp("sources")).make("after", {"petct/__init__.py": "VERSION = 2\n"})
    return Kit(ROOT, before.inventory, source)
