"""The host under faults, and the load on it from outside, which does not feel what happens to the host."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import threading
import time
from typing import Any

from support.control import EPHEMERAL
from support.host import APP, Host

os.environ["CELERY_OPS_DEFAULT_QUEUE"] = APP

from celery import Celery
from celery_ops.ledger import Executions, Monitor, Publisher, reconcile
from kombu import Connection

LEDGER = f"/var/lib/{APP}/ledger"
# Seconds without news after which what is missing counts as lost. What has a countdown and is due in the moment when
# RabbitMQ restarts is tried again by RabbitMQ after three minutes.
PATIENCE = 220
STEADY = 3.0  # seconds of load before a fault, and after the recovery


class Subject(Host):
    """A host that has faults, which end at some time."""

    since = 0.0
    """End of the fault, in seconds since the epoch: recovery counts from here."""

    def mark(self) -> None:
        """The fault ends now, or does all it does at once: recovery counts from here."""
        self.since = time.time()

    def in_network(self, *words: str) -> None:
        """Run a command of this machine in the host's network: the host itself may not change its firewall."""
        inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", self.name]
        pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["nsenter", "--target", pid, "--net", *words], check=True, capture_output=True)

    def ticks(self) -> bool:
        """Tells whether a task comes back, and the scheduler has ticked since the fault."""
        said = self.ask(self.in_release("celery-ops-check -A petct --timeout 20"))
        found = json.loads(said.splitlines()[-1]) if said.startswith("{") else {}
        # One that only found busy workers has not looked at the scheduler.
        return bool(found.get("passed")) and (found["tick_age"] or math.inf) < time.time() - self.since

    @property
    def password(self) -> str:
        """The application's password at the broker."""
        return (EPHEMERAL / f"secrets/{APP}_broker_password").read_text().strip()

    @functools.cached_property
    def versions(self) -> dict[str, str]:
        """Versions of what takes part."""
        python = f"/srv/{APP}/current/venv/bin/python -c"
        return {
            "debian": self.output("cat /etc/debian_version"),
            "rabbitmq": self.output("rabbitmqctl version").splitlines()[-1],
            "celery": self.output(f'{python} "import celery; print(celery.__version__)"'),
            "supervisor": self.output("supervisord --version"),
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
        return Executions.read(self.subject.ask(f"cat {LEDGER}/{self.run}").splitlines())

    def finish(self) -> dict[str, Any]:
        """Stop publishing, wait for the rest, return the reconciled numbers."""
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
