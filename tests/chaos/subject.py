"""The host under faults, and the load on it: what runs there, what has to run, whose books are kept."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/deploy"), str(ROOT / "runtime")]
os.environ["CELERY_OPS_DEFAULT_QUEUE"] = "petct"

from celery import Celery  # noqa: E402
from celery_ops.ledger import Executions, Monitor, Publisher, reconcile  # noqa: E402
from kombu import Connection  # noqa: E402
from lab import APP, Host  # noqa: E402

BOOKS = f"/var/lib/{APP}/ledger"
# Seconds without news after which what is missing counts as lost. What has a countdown and is due in the moment when
# RabbitMQ restarts is tried again by RabbitMQ after three minutes.
PATIENCE = 220
STEADY = 3.0  # seconds of load before a fault, and after all is well again
LOOK = (Path(__file__).parent / "look.py").read_text()


class Subject(Host):
    """One host in all five groups, reached through docker."""

    since = 0.0
    """End of the fault, in seconds since the epoch: recovery counts from here."""

    def mark(self) -> None:
        """The fault ends now, or does all it does at once: recovery counts from here."""
        self.since = time.time()

    def do(self, command: str) -> str:
        """Like `run`, but a command that fails ends the test with what it said."""
        done = subprocess.run(["docker", "exec", self.name, "sh", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    @property
    def address(self) -> str:
        """Its address now; a restart may change it."""
        words = ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()

    def in_network(self, *words: str) -> None:
        """Run a command of this machine in the host's network: the host itself may not change its firewall."""
        inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", self.name]
        pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["nsenter", "--target", pid, "--net", *words], check=True, capture_output=True)

    def in_release(self, command: str) -> str:
        """How an operator runs a command of the current release, with its user and environment."""
        return f"{APP} {command}"

    def ticks(self) -> bool:
        """Tells whether a task goes there and back, and the scheduler has ticked since the fault."""
        said = self.run(self.in_release("celery-ops-prove -A petct --timeout 20"))
        found = json.loads(said.splitlines()[-1]) if said.startswith("{") else {}
        # One that only found busy workers has not looked at the scheduler.
        return bool(found.get("proved")) and (found["tick_age"] or math.inf) < time.time() - self.since

    def look(self) -> dict[str, Any]:
        """The programs' processes as the kernel shows them, see look.py."""
        # As its user: root in a container may not look into other users' processes.
        words = ["docker", "exec", "-i", "-u", APP, self.name, "python3", "-"]
        done = subprocess.run(words, input=LOOK, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-300:]}

    def name_of(self, kind: str) -> str:
        """The one program of a kind: worker, scheduler or web."""
        [name] = [name for name in self.look()["programs"] if name.startswith(f"{APP}-{kind}-")]
        return name

    def main(self, kind: str) -> int:
        """Pid of its one main process."""
        [main] = self.look()["programs"][self.name_of(kind)]
        return main["pid"]

    def children(self) -> list[int]:
        """Pids of the worker's pool children."""
        worker = self.main("worker")
        return [child for child, parent in self.look()["children"] if parent == worker]

    def amiss(self, expected: set[str]) -> str:
        """What differs from one set of workers, one scheduler, one web, of the current release; "" if nothing."""
        shown = set(self.programs())
        if not expected <= shown or {name for name in shown if not name.startswith(f"{APP}-")}:
            return f"supervisorctl shows {sorted(shown)} running, not {sorted(expected)}"
        found = self.look()
        if len(found.get("supervisors", [])) != 1:
            return f"not one supervisord: {found}"
        release = f"/srv/{APP}/releases/{self.current()}/app"
        guarded = {name for name in expected if "-listener-" not in name}
        if set(found["programs"]) != guarded:
            return f"{sorted(found['programs'])} have processes, not {sorted(guarded)}"
        for name, mains in found["programs"].items():
            if len(mains) != 1:
                return f"{name} runs {len(mains)} times: {mains}"
            [main] = mains
            if main["parent"] != found["supervisors"][0]:
                return f"{name} (pid {main['pid']}) is not supervisord's: {main}"
            if main["folder"] != release or main["state"] == "T":
                return f"{name} should run in {release}: {main}"
        if found["strays"]:
            return f"children that have lost their program: {found['strays']}"
        return ""

    @property
    def password(self) -> str:
        """The application's password at the broker."""
        return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], f"secrets/{APP}_broker_password").read_text().strip()

    def intended(self) -> set[str]:
        """Names of the programs that have to run: what the configuration holds."""
        return {line.removesuffix(".conf") for line in self.do("ls /etc/supervisor/conf.d").split()}

    def log(self) -> str:
        """What an operator would look at first."""
        return self.run(f"supervisorctl status; tail -n 40 /var/log/{APP}/*.log; journalctl --no-pager -n 40")

    @functools.cached_property
    def versions(self) -> dict[str, str]:
        """Versions of what takes part."""
        python = f"/srv/{APP}/current/venv/bin/python -c"
        return {
            "debian": self.do("cat /etc/debian_version"),
            "rabbitmq": self.do("rabbitmqctl version").splitlines()[-1],
            "celery": self.do(f'{python} "import celery; print(celery.__version__)"'),
            "supervisor": self.do("supervisord --version"),
        }


class Load:
    """Numbered tasks from the control node, which does not feel what happens to the host."""

    def __init__(self, subject: Subject, run: str, rate: float) -> None:
        self.subject, self.run = subject, run
        self.over = threading.Event()
        app = Celery("ledger", set_as_current=False)
        app.config_from_object("celery_ops.settings")

        def connect() -> Connection:
            url = f"amqp://{APP}:{subject.password}@{subject.address}:5672/{APP}"
            connection = app.connection_for_write(url, connect_timeout=2)
            connection.connect()
            return connection

        self.publisher = Publisher(app, connect, APP, run, rate)
        self.monitor = Monitor(connect, APP)
        self.thread = threading.Thread(target=self.publisher.publish_until, args=(self.over.is_set,), daemon=True)

    def __enter__(self) -> Load:
        self.thread.start()
        self.monitor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.monitor.over.set()
        self.thread.join(60)

    def executions(self) -> Executions:
        """What was executed so far."""
        return Executions.read(self.subject.run(f"cat {BOOKS}/{self.run}").splitlines())

    def finish(self) -> dict[str, Any]:
        """Stop publishing, wait for the rest, return the books."""
        self.over.set()
        self.thread.join(60)
        assert not self.thread.is_alive(), "the publisher hangs"
        seen, news = self.executions(), time.monotonic()
        confirmed = {attempt.number for attempt in self.publisher.attempts if attempt.confirmed}
        while confirmed - set(seen.done) and time.monotonic() < news + PATIENCE:
            time.sleep(0.5)
            now = self.executions()
            if now != seen:
                seen, news = now, time.monotonic()
        self.monitor.over.set()
        return reconcile(self.publisher.attempts, seen, self.monitor.samples, self.subject.since)
