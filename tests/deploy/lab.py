"""Two hosts and one operator: variants of the application, deploys, and a load whose books are kept."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
APP = "petct"
HOSTS = ("celery-ops-deploy-bookworm", "celery-ops-deploy-trixie")
BOOKS = f"/srv/{APP}/shared/ledger"
LOCK = f"/run/celery-ops/{APP}/deploy.lock"
LEDGER = "/var/lib/petct/ledger.py"


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


def play(name: str, *hosts: str, **variables: Any) -> Run:
    """Run a playbook as an operator does."""
    return run(command_of(name, *hosts, **variables))


def run(command: list[str]) -> Run:
    """Run a command of the control node's."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - begun)


def command_of(name: str, *hosts: str, **variables: Any) -> list[str]:
    """The command line that runs a playbook on these hosts (all of them unless told)."""
    ephemeral = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
    variables = {"celery_app_secrets_dir": f"{ephemeral}/secrets", **variables}
    limit = ["--limit", ",".join(hosts)] if hosts else []
    inventory = ["-i", f"{ephemeral}/inventory"]
    return ["ansible-playbook", *inventory, *limit, "-e", json.dumps(variables), f"playbooks/{name}.yml"]


def deployed(*hosts: str, **variables: Any) -> Run:
    """A deploy that has to succeed."""
    run = play("deploy", *hosts, **variables)
    assert run.rc == 0, run.text[-6000:]
    return run


@dataclass(frozen=True)
class Inventory:
    """An application's own inventory, as its owner writes it: one host in some groups, and a file of variables."""

    folder: Path

    @classmethod
    def write(cls, folder: Path, host: str, groups: Iterable[str], variables: dict[str, Any]) -> Inventory:
        """Make it, in a new folder; beside it lies only what a test host needs."""
        children = {group: {"hosts": {host: None}} for group in groups}
        there = {host: {"ansible_connection": "community.docker.docker"}}
        (folder / "group_vars/all").mkdir(parents=True)
        (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": there, "children": children}}))
        inventory = cls(folder)
        inventory.set("app", **variables)
        # Where the control node trusts private CAs, so do its test hosts; pip has to be told.
        if any(Path("/usr/local/share/ca-certificates").glob("*.crt")):
            inventory.set("pip", celery_app_install_environment={"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"})
        return inventory

    def set(self, name: str, **variables: Any) -> None:
        """Write a file of variables; one that comes later in the alphabet wins."""
        (self.folder / f"group_vars/all/{name}.yml").write_text(json.dumps(variables))

    def play(self, name: str, **variables: Any) -> Run:
        """Run a playbook as an operator does."""
        return run(
            ["ansible-playbook", "-i", str(self.folder), "-e", json.dumps(variables), f"playbooks/{name}.yml"],
        )


class Host:
    """A host through docker."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def run(self, command: str) -> str:
        """What a shell command prints, whatever its exit code."""
        done = subprocess.run(["docker", "exec", self.name, "sh", "-c", command], capture_output=True, text=True)
        return done.stdout.strip()

    def programs(self) -> dict[str, str]:
        """Pid of every running program by name."""
        lines = self.run("supervisorctl status").splitlines()
        found = (re.match(r"(\S+)\s+RUNNING\s+pid (\d+)", line) for line in lines)
        return {one[1]: one[2] for one in found if one}

    def workers(self) -> dict[str, str]:
        """Pid of every running worker program."""
        return {name: pid for name, pid in self.programs().items() if name.startswith(f"{APP}-worker-")}

    def current(self) -> str:
        """The current release's id."""
        return self.run(f"basename $(readlink /srv/{APP}/current)")

    def releases(self) -> dict[str, str]:
        """Status of every release."""
        script = (
            "import glob, json; print(json.dumps([json.load(open(p)) | {'p': p} for p in glob.glob('*/release.json')]))"
        )
        notes = json.loads(self.run(f'cd /srv/{APP}/releases && python3 -c "{script}"'))
        return {note["p"].split("/")[0]: note["status"] for note in notes}

    def last_deploy(self) -> dict[str, Any]:
        """The last line of the audit log."""
        return json.loads(self.run(f"tail -n 1 /var/log/{APP}/deploys.log"))

    def confs(self) -> dict[str, str]:
        """The text of every program file of the application."""
        files = "glob.glob('/etc/supervisor/conf.d/petct-*')"
        script = f"import glob, json; print(json.dumps({{path: open(path).read() for path in {files}}}))"
        return json.loads(self.run(f'python3 -c "{script}"'))

    def send(self, task: str, *arguments: Any) -> None:
        """Publish a task."""
        self.run(f"{APP} celery call {task} --args {shlex.quote(json.dumps(arguments))} --queue {APP}")

    def consumers(self) -> int:
        """Consumers of the application's queue, as the broker counts them."""
        rows = json.loads(self.run(f"rabbitmqctl -q -p {APP} list_queues name consumers --formatter json"))
        return {row["name"]: row["consumers"] for row in rows}[APP]


class Visitor(threading.Thread):
    """Asks a host for its page all the time, on a new connection each, and notes what was not a page."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self.address = host.run("hostname -i").split()[0]
        self.asked = 0
        self.refused: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Ask ten times a second until told to stop."""
        while not self.over.wait(0.1):
            self.asked += 1
            try:
                with urllib.request.urlopen(f"http://{self.address}:8000/", timeout=30) as page:
                    page.read()
            except OSError as error:
                self.refused.append(str(error))

    def finish(self) -> list[str]:
        """Stop asking; return what went wrong."""
        self.over.set()
        self.join(40)
        return self.refused


class Load:
    """Numbered tasks published on a host, until told to stop; `through` runs a command as the application."""

    def __init__(
        self, host: Host, name: str, rate: float, tasks: int,
        queue: str = APP, patience: int = 90, through: str = APP,
    ) -> None:  # fmt: skip
        self.host, self.stop = host, f"/var/lib/petct/{name}.stop"
        host.run(f"rm -f {self.stop}")
        command = (
            f"{through} python {LEDGER} --queue {queue} --run {name} "
            f"--folder {BOOKS} --rate {rate} --tasks {tasks} --until {self.stop} --patience {patience}"
        )
        words = ["docker", "exec", host.name, "sh", "-c", f"exec {command}"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self, stop: bool = True) -> dict[str, Any]:
        """Stop publishing (or let it come to its end), wait for the rest, return the books."""
        if stop:
            self.host.run(f"touch {self.stop}")
        said = self.process.communicate(timeout=150 if stop else 900)[0]
        assert self.process.returncode == 0, said
        return json.loads(said.splitlines()[-1])


class AppLoad:
    """Numbered tasks for any application, by its release's own ledger, until told to stop."""

    def __init__(self, host: Host, app: str, module: str = "", queue: str = "", run: str = "load") -> None:
        self.host, self.app, self.run = host, app, run
        self.stop, self.book = f"/var/lib/{app}/{run}.stop", f"/var/lib/{app}/ledger/{run}"
        words = f"--run {run} --rate 10 --duration 300 --until {self.stop}"
        self.process = self.start(f"publish -A {module or app} --queue {queue or app} {words}")

    def start(self, words: str) -> subprocess.Popen[str]:
        """Start a command of the ledger's on the host."""
        return subprocess.Popen(
            ["docker", "exec", self.host.name, "sh", "-c", f"{self.app} celery-ops-ledger {words}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begun(self) -> bool:
        """Whether it has tasks behind it."""
        assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
        return self.host.run(f"test -s {self.book} && echo yes") == "yes"

    def finish(self) -> dict[str, Any]:
        """Stop; return the books."""
        self.host.run(f"runuser -u {self.app} -- touch {self.stop}")
        said = self.process.communicate(timeout=60)[0]
        assert self.process.returncode == 0, said
        lines = f"/tmp/{self.app}.lines"
        self.start(f"collect --run {self.run} --patience 60 > {lines}").communicate(timeout=120)
        books = self.start(f"reconcile --run {self.run} < {lines}").communicate(timeout=60)[0]
        return json.loads(books.splitlines()[-1])


class Variants:
    """Copies of the reference application, each with one change."""

    def __init__(self, folder: Path, app: Path = ROOT / "app") -> None:
        self.folder, self.app = folder, app

    def make(self, name: str, edits: dict[str, str] | None = None) -> Path:
        """The application with the ledger's tasks and, for every file in `edits`, that text added to its end."""
        target = self.folder / name
        if target.exists():
            return target
        ignore = shutil.ignore_patterns("__pycache__", "data", "*.sqlite3*", "tests")
        shutil.copytree(self.app, target, ignore=ignore)
        shutil.copy(ROOT / "tests/chaos/ledger_tasks.py", target / "ledger_tasks.py")
        self.add(target / "petct/celery.py", '\napp.conf.imports = (*app.conf.imports, "ledger_tasks")\n')
        for path, text in (edits or {}).items():
            self.add(target / path, text)
        return target

    @staticmethod
    def add(path: Path, text: str) -> None:
        """Add text to the end of a file."""
        with path.open("a") as file:
            file.write(text)
