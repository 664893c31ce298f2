"""A host under test, through an operator's hands: shell, supervisorctl, the application's own commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[2]
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "."))
APP = "petct"
CURRENT = f"/srv/{APP}/current"
KINDS = {
    "worker": f"{APP}-worker-default-",
    "scheduler": f"{APP}-scheduler-",
    "web": f"{APP}-web-",
}
PORT = 8000


@dataclass(frozen=True)
class Program:
    """One line of `supervisorctl status`."""

    name: str
    state: str
    pid: int | None

    @property
    def pidfile(self) -> str:
        """Where its pidfile is; the scheduler's is the same in every generation."""
        name = "scheduler" if self.name.startswith(KINDS["scheduler"]) else self.name
        return f"/run/{APP}/{name}.pid"

    @property
    def log(self) -> str:
        """Where its log is."""
        return f"/var/log/{APP}/{self.name}.log"


@dataclass(frozen=True)
class System:
    """One host, which is a whole Celery system of its own."""

    name: str
    has_systemd: bool

    @cached_property
    def host(self) -> Host:
        """Testinfra's view of the host."""
        return testinfra.get_host(f"docker://{self.name}")

    @property
    def address(self) -> str:
        """The host's address as the control node reaches it."""
        format_ = "{{ range .NetworkSettings.Networks }}{{ .IPAddress }}{{ end }}"
        command = ("docker", "inspect", "--format", format_, self.name)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def url(self) -> str:
        """The web program's address."""
        return f"http://{self.address}:{PORT}"

    def run(self, command: str) -> Any:
        """Runs a shell command as root; returns testinfra's result (rc, stdout, stderr)."""
        return self.host.run(command)

    def output(self, command: str) -> str:
        """Returns what a shell command prints; a failing one fails the test with what it said."""
        done = self.run(command)
        assert done.rc == 0, f"`{command}` ended with {done.rc}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def in_release(self, command: str) -> str:
        """How an operator runs a command of the current release, with its user and environment."""
        return f"{APP} {command}"

    def programs(self) -> list[Program]:
        """Every program Supervisor knows, in its order."""
        lines = self.run("supervisorctl status").stdout.splitlines()
        found = (re.match(r"(\S+)\s+([A-Z]+)\s*(?:pid (\d+))?", line) for line in lines)
        return [Program(one[1], one[2], int(one[3]) if one[3] else None) for one in found if one]

    def program(self, kind: str) -> Program:
        """The one program of a kind: worker, scheduler or web."""
        found = [program for program in self.programs() if re.fullmatch(f"{KINDS[kind]}[0-9a-f]{{8}}", program.name)]
        assert len(found) == 1, f"expected one {kind} on {self.name}, found {found}"
        return found[0]

    def proves_itself(self) -> bool:
        """Tells whether a loadArray task goes to the worker and comes back as the array it should be."""
        return self.run(self.in_release("python manage.py prove --timeout 20")).rc == 0

    def play(self, name: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a playbook for this host as an operator does, with nobody there to answer a question."""
        inventory = ("-i", str(EPHEMERAL / "inventory"), "--limit", self.name)
        secrets = ("-e", f"celery_app_secrets_dir={EPHEMERAL}/secrets")
        return subprocess.run(
            ("ansible-playbook", *inventory, *secrets, *options, f"playbooks/{name}.yml"),
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def restart(self) -> None:
        """Restarts the whole machine, as `reboot` would."""
        subprocess.run(("docker", "restart", "--time", "60", self.name), capture_output=True, check=True)

    def diagnosis(self) -> str:
        """What an operator would look at first."""
        parts = ["supervisorctl status", f"tail -n 25 /var/log/{APP}/*.log"]
        if self.has_systemd:
            parts += ["systemctl --failed --no-pager", "journalctl --no-pager --lines 30"]
        return "\n".join(f"$ {part}\n{self.run(part + ' 2>&1').stdout}" for part in parts)

    def command_of(self, program: Program) -> str:
        """The command line in a program's conf, as a shell takes it."""
        conf = self.output(f"cat /etc/supervisor/conf.d/{shlex.quote(program.name)}.conf")
        [command] = re.findall(r"^command=(.*)$", conf, re.MULTILINE)
        return command.replace("%%", "%")
