"""The control node: playbooks as an operator runs them, inventories, sources of an application."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.host import Host

ROOT = Path(__file__).resolve().parents[2]
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")


@dataclass(frozen=True)
class Run:
    """What a playbook did: exit code, all it said, seconds."""

    rc: int
    text: str
    seconds: float

    @property
    def words(self) -> str:
        """All it said, whatever the line breaks."""
        return " ".join(self.text.split())

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks by host."""
        return self.recap("changed")

    @property
    def failed(self) -> dict[str, int]:
        """Failed tasks by host."""
        return self.recap("failed")

    def recap(self, what: str) -> dict[str, int]:
        """A column of the play recap."""
        return {host: int(count) for host, count in re.findall(rf"^(\S+)\s+: ok=.*\b{what}=(\d+)", self.text, re.M)}


def run(command: list[str], directory: Path = ROOT, environment: Mapping[str, str] | None = None) -> Run:
    """Run a command of the control node's, with nobody there to answer a question."""
    begun = time.monotonic()
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "ANSIBLE_CONFIG": str(directory / "ansible.cfg"), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - begun)


def run_plays(
    directory: Path, plays: Iterable[Mapping[str, Any]], inventory: Mapping[str, Any], **environment: str
) -> Run:
    """Run plays of a test's own, written into this directory, with the project's ansible.cfg."""
    (directory / "play.yml").write_text(json.dumps([*plays]))
    (directory / "hosts.yml").write_text(json.dumps(inventory))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml"]
    return run(command, directory, {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment})


def command_of(name: str, *hosts: Host, options: Iterable[str] = (), **variables: Any) -> list[str]:
    """The command line that runs a playbook on these hosts of the scenario (all of them unless told)."""
    variables = {"celery_app_secrets_dir": f"{EPHEMERAL}/secrets", **variables}
    limit = ["--limit", ",".join(host.name for host in hosts)] if hosts else []
    inventory = ["-i", f"{EPHEMERAL}/inventory"]
    return ["ansible-playbook", *inventory, *limit, "-e", json.dumps(variables), *options, f"playbooks/{name}.yml"]


def start(name: str, *hosts: Host, output: int = subprocess.DEVNULL, **variables: Any) -> subprocess.Popen[str]:
    """Start a playbook in a session of its own, as a control node is a machine of its own."""
    return subprocess.Popen(
        command_of(name, *hosts, **variables),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def play(name: str, *hosts: Host, options: Iterable[str] = (), **variables: Any) -> Run:
    """Run a playbook as an operator does."""
    return run(command_of(name, *hosts, options=options, **variables))


def deployed(*hosts: Host, **variables: Any) -> Run:
    """A deploy that has to succeed."""
    run = play("deploy", *hosts, **variables)
    assert run.rc == 0, run.text[-6000:]
    return run


def install_environment() -> dict[str, Any]:
    """What pip has to be told where the control node trusts private CAs, as its test hosts then do."""
    if not any(Path("/usr/local/share/ca-certificates").glob("*.crt")):
        return {}
    return {"celery_app_install_environment": {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"}}


@dataclass(frozen=True)
class Inventory:
    """An application's own inventory, as its owner writes it: one host in some groups, and files of variables."""

    directory: Path
    kit: Path = ROOT

    @classmethod
    def write(
        cls, directory: Path, host: Host, groups: Iterable[str], variables: dict[str, Any], kit: Path = ROOT
    ) -> Inventory:
        """Make it in a new directory; beside it lies only what a test host needs."""
        children = {group: {"hosts": {host.name: None}} for group in groups}
        there = {host.name: {"ansible_connection": "community.docker.docker"}}
        (directory / "group_vars/all").mkdir(parents=True)
        (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": there, "children": children}}))
        inventory = cls(directory, kit)
        inventory.set("app", **variables)
        inventory.set("pip", **install_environment())
        return inventory

    def set(self, name: str, **variables: Any) -> None:
        """Write a file of variables; one that comes later in the alphabet wins."""
        (self.directory / f"group_vars/all/{name}.yml").write_text(json.dumps(variables))

    def rename(self, names: Mapping[str, str]) -> None:
        """Give variables of its files new names."""
        for file in self.directory.rglob("*.yml"):
            text = file.read_text()
            for old, new in names.items():
                text = text.replace(f"{old}:", f"{new}:")
            file.write_text(text)

    def of(self, kit: Path) -> Inventory:
        """The same inventory, used with another version of the kit."""
        return Inventory(self.directory, kit)

    def play(self, name: str, *options: str, **variables: Any) -> Run:
        """Run a playbook as an operator does."""
        words = ["ansible-playbook", "-i", str(self.directory), "-e", json.dumps(variables), f"playbooks/{name}.yml"]
        return run([*words, *options], self.kit)


# A task that goes on until a file is there, or for four minutes; it says that it has begun by another file.
HOLD = """

import pathlib, time
@app.task(name="hold", ignore_result=True)
def hold(until):
    pathlib.Path(until + ".began").touch()
    end = time.monotonic() + 240
    while not pathlib.Path(until).exists() and time.monotonic() < end:
        time.sleep(0.1)
"""


class Variants:
    """Copies of the reference application, each with one change."""

    def __init__(self, directory: Path, app: Path = ROOT / "app") -> None:
        self.directory, self.app = directory, app

    def make(self, name: str, edits: dict[str, str] | None = None) -> Path:
        """The application with a task `hold` and, for every file in `edits`, that text added to its end."""
        target = self.directory / name
        if not target.exists():
            ignore = shutil.ignore_patterns("__pycache__", "data", "*.sqlite3*", "tests")
            shutil.copytree(self.app, target, ignore=ignore)
            for path, text in (("petct/celery.py", HOLD), *(edits or {}).items()):
                with (target / path).open("a") as file:
                    file.write(text)
        return target
