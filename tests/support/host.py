"""A test host, through an operator's hands: shell, supervisorctl, the application's own commands."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

from support.wait import wait_until

APP = "petct"
KINDS = ("worker-default", "scheduler", "web")
CURRENT = f"/srv/{APP}/current"
PORT = 8000
PROCESSES = Path(__file__).with_name("processes.py")


@dataclass(frozen=True)
class Done:
    """What a command did."""

    rc: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Program:
    """One line of `supervisorctl status`."""

    name: str
    state: str
    pid: int | None

    @property
    def app(self) -> str:
        """The application that it belongs to."""
        return self.name.partition("-")[0]

    @property
    def kind(self) -> str:
        """Its name without application and generation."""
        return self.name[len(self.app) + 1 : -9]

    @property
    def pidfile(self) -> str:
        """Where its pidfile is; the scheduler's is the same in every generation."""
        return f"/run/{self.app}/{'scheduler' if self.kind == 'scheduler' else self.name}.pid"

    @property
    def log(self) -> str:
        """Where its log is."""
        return f"/var/log/{self.app}/{self.name}.log"


class Host:
    """A container that is a host of a scenario, and an application on it."""

    def __init__(self, name: str, app: str = APP, has_systemd: bool = True) -> None:
        self.name, self.app, self.has_systemd = name, app, has_systemd

    def __repr__(self) -> str:
        return self.name

    # The shell

    def run(self, command: str, user: str = "root", stdin: str = "") -> Done:
        """Run a shell command."""
        words = ["docker", "exec", "-i", "-u", user, self.name, "sh", "-c", command]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, errors="replace")
        return Done(done.returncode, done.stdout, done.stderr)

    def output(self, command: str, user: str = "root", stdin: str = "") -> str:
        """Return what a shell command prints; one that fails ends the test with what it said."""
        done = self.run(command, user, stdin)
        assert done.rc == 0, f"`{command}` ended with {done.rc}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def ask(self, command: str) -> str:
        """Return what a shell command prints, whatever its exit code."""
        return self.run(command).stdout.strip()

    def in_release(self, command: str) -> str:
        """How an operator runs a command of the current release, with its user and environment."""
        return f"{self.app} {command}"

    @functools.cached_property
    def testinfra(self) -> Any:
        """Testinfra's view of the host: files, packages, users."""
        return testinfra.get_host(f"docker://{self.name}")

    # The machine

    @property
    def address(self) -> str:
        """Its address as the control node reaches it; a restart may change it."""
        template = "{{ range .NetworkSettings.Networks }}{{ .IPAddress }}{{ end }}"
        words = ["docker", "inspect", "--format", template, self.name]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def url(self) -> str:
        """The web program's address."""
        return f"http://{self.address}:{PORT}"

    def restart(self, seconds: int = 60) -> None:
        """Restart the whole machine, as `reboot` would; what has not ended by then is killed."""
        self._docker("restart", "--time", str(seconds), self.name)

    def cut_power(self) -> None:
        """Switch the machine off."""
        self._docker("kill", self.name)

    def power_on(self) -> None:
        """Switch the machine on."""
        self._docker("start", self.name)

    def cut_off(self) -> None:
        """Let no packet in or out but on loopback; the host itself may not change its firewall."""
        self._firewall("-I")

    def connect(self) -> None:
        """End what `cut_off` did."""
        self._firewall("-D")

    def _firewall(self, action: str) -> None:
        inspect = ["docker", "inspect", "--format", "{{ .State.Pid }}", self.name]
        pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
            rule = ["iptables", "--wait", action, chain, "!", way, "lo", "-j", "DROP"]
            subprocess.run(["nsenter", "--target", pid, "--net", *rule], check=True, capture_output=True)

    def copy(self, source: Path, target: str) -> None:
        """Copy a file to the host."""
        self._docker("cp", "-q", str(source), f"{self.name}:{target}")

    @staticmethod
    def _docker(*words: str) -> None:
        subprocess.run(["docker", *words], check=True, capture_output=True)

    # Programs

    def programs(self) -> list[Program]:
        """Every program that Supervisor knows, in its order."""
        lines = self.run("supervisorctl status").stdout.splitlines()
        found = (re.match(r"(\S+)\s+([A-Z]+)\s*(?:pid (\d+))?", line) for line in lines)
        return [Program(one[1], one[2], int(one[3]) if one[3] else None) for one in found if one]

    def program(self, kind: str) -> Program:
        """The one program of a kind."""
        found = [program for program in self.programs() if (program.app, program.kind) == (self.app, kind)]
        assert len(found) == 1, f"expected one {kind} on {self.name}, found {found}"
        return found[0]

    def running(self) -> dict[str, int | None]:
        """Pid of every running program by name."""
        return {program.name: program.pid for program in self.programs() if program.state == "RUNNING"}

    def workers(self) -> dict[str, int | None]:
        """Pid of every running worker program by name."""
        return {name: pid for name, pid in self.running().items() if name.startswith(f"{self.app}-worker-")}

    def worker_states(self) -> dict[str, str]:
        """Supervisor's state of every worker program."""
        return {one.name: one.state for one in self.programs() if one.name.startswith(f"{self.app}-worker-")}

    def intended(self) -> set[str]:
        """Names of the programs that have to run: what the configuration holds."""
        return {line.removesuffix(".conf") for line in self.output("ls /etc/supervisor/conf.d").split()}

    def confs(self) -> dict[str, str]:
        """The text of every program file of the application by the program's name."""
        files = f"glob.glob('/etc/supervisor/conf.d/{self.app}-*.conf')"
        script = f"import glob, json; print(json.dumps({{path: open(path).read() for path in {files}}}))"
        return {Path(path).stem: text for path, text in json.loads(self.output(f'python3 -c "{script}"')).items()}

    def command_of(self, program: Program) -> str:
        """The command line in a program's conf, as a shell takes it."""
        conf = self.output(f"cat /etc/supervisor/conf.d/{shlex.quote(program.name)}.conf")
        [command] = re.findall(r"^command=(.*)$", conf, re.MULTILINE)
        return command.replace("%%", "%")

    def services(self) -> str:
        """The main processes of RabbitMQ, Redis and Supervisor: not a command of theirs, nor a child that saves."""
        return self.output("systemctl show --property Id,MainPID rabbitmq-server redis-server supervisor")

    def processes(self) -> dict[str, Any]:
        """The programs' processes as the kernel shows them, see processes.py."""
        # As its user: root in a container may not look into other users' processes.
        done = self.run("exec python3 -", user=self.app, stdin=PROCESSES.read_text())
        return json.loads(done.stdout) if done.rc == 0 else {"error": done.stderr[-300:]}

    def main(self, kind: str) -> int:
        """Pid of the one main process of a kind of program."""
        [main] = [
            process
            for name, processes in self.processes()["programs"].items()
            if name.startswith(f"{self.app}-{kind}-")
            for process in processes
        ]
        return main["pid"]

    def children(self) -> list[int]:
        """Pids of the worker's pool processes."""
        worker = self.main("worker")
        return [child for child, parent in self.processes()["children"] if parent == worker]

    def amiss(self, expected: set[str] | None = None) -> str:
        """What differs from one process of each program of conf.d, of the current release; "" if nothing."""
        expected = self.intended() if expected is None else expected
        shown = set(self.running())
        if not expected <= shown or {name for name in shown if not name.startswith(f"{self.app}-")}:
            return f"supervisorctl shows {sorted(shown)} running, not {sorted(expected)}"
        found = self.processes()
        if len(found.get("supervisors", [])) != 1:
            return f"not one supervisord: {found}"
        release = f"/srv/{self.app}/releases/{self.current()}/app"
        guarded = {name for name in expected if "-listener-" not in name}
        if set(found["programs"]) != guarded:
            return f"{sorted(found['programs'])} have processes, not {sorted(guarded)}"
        for name, mains in found["programs"].items():
            if len(mains) != 1:
                return f"{name} runs {len(mains)} times: {mains}"
            [main] = mains
            if main["parent"] != found["supervisors"][0]:
                return f"{name} (pid {main['pid']}) is not supervisord's: {main}"
            if main["directory"] != release or main["state"] == "T":
                return f"{name} should run in {release}: {main}"
        if found["strays"]:
            return f"children that have lost their program: {found['strays']}"
        return ""

    # The application

    def current(self) -> str:
        """The current release's id."""
        return self.ask(f"basename $(readlink /srv/{self.app}/current)")

    def releases(self) -> dict[str, str]:
        """Status of every release."""
        statuses = "{p: json.load(open(p))['status'] for p in glob.glob('*/release.json')}"
        script = f"import glob, json; print(json.dumps({statuses}))"
        found = json.loads(self.output(f'cd /srv/{self.app}/releases && python3 -c "{script}"'))
        return {path.split("/")[0]: status for path, status in found.items()}

    def last_deploy(self) -> dict[str, Any]:
        """The last line of the audit log."""
        return json.loads(self.output(f"tail -n 1 /var/log/{self.app}/deploys.log"))

    def lock(self) -> dict[str, Any]:
        """Who holds the deploy lock; empty when it is free."""
        text = self.ask(f"cat /run/celery-ops/{self.app}/deploy.lock")
        return json.loads(text) if text else {}

    def send(self, task: str, *arguments: Any) -> None:
        """Publish a task."""
        words = f"celery call {task} --args {shlex.quote(json.dumps(arguments))} --queue {self.app}"
        self.run(self.in_release(words))

    def consumers(self) -> int | None:
        """Consumers of the application's queue, as the broker counts them; None while it does not answer."""
        done = self.run(f"rabbitmqctl -q -p {self.app} list_queues name consumers --formatter json")
        rows = json.loads(done.stdout) if done.rc == 0 else []
        return {row["name"]: row["consumers"] for row in rows}.get(self.app)

    def await_consumers(self, number: int) -> None:
        """Waits until the queue has that many consumers: a quorum queue counts them anew every five seconds."""
        wait_until(lambda: self.consumers() == number, 15, f"{number} consumers on {self}")

    def task_comes_back(self) -> bool:
        """Tells whether a task of the reference application comes back with the array that it should be."""
        return self.run(self.in_release("python manage.py round_trip --timeout 20")).rc == 0

    def diagnosis(self) -> str:
        """What an operator would look at first."""
        parts = ["supervisorctl status", f"tail -n 40 /var/log/{self.app}/*.log"]
        if self.has_systemd:
            parts += ["systemctl --failed --no-pager", "journalctl --no-pager --lines 40"]
        return "\n".join(f"$ {part}\n{self.run(part + ' 2>&1').stdout}" for part in parts)


@functools.cache
def scenario_hosts() -> tuple[Host, ...]:
    """The hosts of the molecule scenario that runs these tests, the same objects each time: with another host pytest
    makes a fixture of a module anew.
    """
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("these tests need the hosts of a molecule scenario; type: make molecule")
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return tuple(Host(platform["name"], has_systemd="command" not in platform) for platform in platforms)
