"""Numbered tasks through a system under test, by the ledger of its own release, and visitors of its page."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.host import Host

COMMAND = "celery-ops-soak"


class Load:
    """Numbered tasks that an application's release publishes on its host, until told to stop."""

    def __init__(
        self, host: Host, run: str = "load", rate: float = 10, module: str = "", queue: str = "", tasks: int = 10**9,
        command: str = COMMAND,
    ) -> None:  # fmt: skip
        self.host, self.run, self.command = host, run, command
        self.stop, self.file = f"/var/lib/{host.app}/{run}.stop", f"/var/lib/{host.app}/ledger/{run}"
        host.run(f"rm -f {self.stop}")
        words = f"-A {module or host.app} --queue {queue or host.app} --rate {rate} --tasks {tasks}"
        self.process = self._start(f"publish {words} --run {run} --duration 3600 --until {self.stop}")

    def _start(self, words: str) -> subprocess.Popen[str]:
        """Start a command of the ledger's on the host."""
        return subprocess.Popen(
            ["docker", "exec", self.host.name, "sh", "-c", self.host.in_release(f"{self.command} {words}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begun(self) -> bool:
        """Whether it has tasks behind it."""
        assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
        return self.host.run(f"test -s {self.file}").rc == 0

    def executions(self) -> list[tuple[float, str]]:
        """When each of its tasks began, in order, and by which release."""
        lines = (line.split() for line in self.host.ask(f"grep began {self.file}").splitlines())
        return sorted((float(at), release) for _, _, at, release, _ in lines)

    def finish(self, stop: bool = True, patience: int = 90) -> dict[str, Any]:
        """Stop publishing (or let it come to its end), wait for the rest, return the reconciled numbers."""
        if stop:
            self.host.run(f"touch {self.stop}", user=self.host.app)
        said = self.process.communicate(timeout=60 if stop else 900)[0]
        assert self.process.returncode == 0, said
        lines = f"/tmp/{self.host.app}-{self.run}.lines"
        self._start(f"collect --run {self.run} --patience {patience} > {lines}").communicate(timeout=patience + 120)
        numbers = self._start(f"reconcile --run {self.run} < {lines}").communicate(timeout=60)[0]
        return json.loads(numbers.splitlines()[-1])


def reconciled(load: Load, hosts: Iterable[Host], patience: int = 30) -> dict[str, Any]:
    """Stop a load; return its numbers, of the tasks that the workers of all these hosts have executed."""
    load.host.run(f"touch {load.stop}", user=load.host.app)
    load.process.communicate(timeout=120)
    collect = f"{load.command} collect --run {load.run} --patience {patience}"
    with ThreadPoolExecutor() as pool:  # each host waits for the end of its patience
        lines = "\n".join(pool.map(lambda host: host.output(host.in_release(collect)), hosts))
    reconcile = load.host.in_release(f"{load.command} reconcile --run {load.run}")
    return json.loads(load.host.output(reconcile, stdin=lines + "\n").splitlines()[-1])


class Visitor(threading.Thread):
    """Asks a host for its page all the time, on a new connection each, and notes what was not a page."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self.url = f"{host.url}/"
        self.asked = 0
        self.refused: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Ask five times a second until told to stop."""
        while not self.over.wait(0.2):
            self.asked += 1
            try:
                with urllib.request.urlopen(self.url, timeout=30) as page:
                    page.read()
            except OSError as error:
                self.refused.append(str(error))

    def finish(self) -> list[str]:
        """Stop asking; return what went wrong."""
        self.over.set()
        self.join(40)
        return self.refused
