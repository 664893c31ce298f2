#!/usr/bin/env python3
"""Deploys beside the plain way (bench/plain.yml: unpack, pip, restart), in turns, all of it under a steady load.

`python3 bench/deploy.py [HOST] [--times 3] [--many]`: the host has the kit on it and a first deployment. Times are
from the start of ansible-playbook to its end, or to the first task that the new release has begun. The plain way
replaces one worker; ours replaces worker, scheduler, watchdog and web program, proves and observes them. Both take 15
numbered tasks a second all the while, each from its own queue; a task that the kit loses or does twice is an error.
A dependency change is one package more or less in the lock file, beside pip alone, which makes the same virtualenv on
the same host from the same cache. `--many` also sends 10,000 tasks through three deploys and a rollback.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.control import Variants, command_of, deployed, install_environment, play, run  # noqa: E402
from support.host import Host  # noqa: E402
from support.load import Load  # noqa: E402
from tables import Row, by_turns, write  # noqa: E402

RATE = 15.0  # tasks a second
STEADY = 3.0  # seconds of load alone between two that are measured
OPTIONAL = ("psycopg", "psycopg-binary")
"""What the reference application does without on SQLite."""
SETTINGS = {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 12}]}
PIP_ALONE = """
rm -rf /tmp/bench-pip && python3 -m venv /tmp/bench-pip && \
/tmp/bench-pip/bin/pip install -q --disable-pip-version-check -r /tmp/bench-requirements.txt
"""


class Bench:
    """A host, its two loads, and versions of the reference application that nothing has deployed before."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.variants = Variants(directory / "variants")
        self.consuming: list[float] = []
        self.made = 0
        for _ in range(2):  # the first one may have to make a virtualenv
            self.deploy(self.version())
        host.output("apt-get -qq install python3-packaging")  # which Ansible's module pip wants
        self.plain()
        self.loads = {name: Load(host, f"bench-{name}", RATE, queue=name) for name in ("petct", "plain")}

    def version(self, without: tuple[str, ...] = ()) -> Path:
        """Return the source of a new version, some packages left out of its lock file."""
        self.made += 1
        source = self.variants.make(f"v{self.made}", {"petct/__init__.py": f"V = {self.made}\n"})
        lock = source / "requirements.txt"
        names = "|".join(map(re.escape, without))
        lock.write_text(
            re.sub(rf"^({names})==.*\n(?:    .*\n)*", "", lock.read_text(), flags=re.M) if names else lock.read_text()
        )
        return source

    def rest(self) -> None:
        """Let the loads run alone; one that has ended is an error."""
        deadline = time.monotonic() + STEADY
        while time.monotonic() < deadline:
            assert all(load.process.poll() is None for load in self.loads.values()), "a load has ended"
            time.sleep(0.1)

    def deploy(self, source: Path) -> float:
        """Return the seconds of a deploy by the kit."""
        return deployed(self.host, celery_app_source=str(source), **SETTINGS).seconds

    def code(self) -> float:
        """A code-only deploy; notes when the new release began its first task."""
        source = self.version()
        self.rest()
        begun = time.time()
        seconds = self.deploy(source)
        release = self.host.current()
        self.consuming.append(
            next(at for at, by in self.loads["petct"].executions() if by == release and at >= begun) - begun
        )
        return seconds

    def plain(self) -> float:
        """The same by the plain way."""
        source, archive = self.version(), self.directory / "plain.tar.gz"
        with tarfile.open(archive, "w:gz", dereference=True) as tar:
            tar.add(source, arcname=".")
            tar.add(ROOT / "runtime/celery_ops", arcname="celery_ops")
        if self.made > 3:
            self.rest()
        words = [word for word in command_of("deploy", self.host) if word != "playbooks/deploy.yml"]
        done = run([*words, "-e", json.dumps({"plain_archive": str(archive)}), "bench/plain.yml"])
        assert done.rc == 0, done.text[-3000:]
        return done.seconds

    def dependency(self) -> float:
        """A deploy with another lock file."""
        source = self.version(OPTIONAL[: 1 + self.made % 2])
        (source / "requirements.txt").open("a").write(f"# {self.made}\n")  # no virtualenv is the same
        self.rest()
        return self.deploy(source)

    def pip(self) -> float:
        """Making that virtualenv anew, by pip alone."""
        lock = self.version(OPTIONAL) / "requirements.txt"
        self.rest()
        self.host.output("cat > /tmp/bench-requirements.txt", stdin=lock.read_text())
        given = install_environment().get("celery_app_install_environment", {})
        begun = time.monotonic()
        self.host.output(" ".join(f"export {name}={value};" for name, value in given.items()) + PIP_ALONE)
        return time.monotonic() - begun

    def finish(self) -> dict[str, Any]:
        """Stop the loads and take the plain worker away; return what became of the tasks, by load."""
        numbers = {name: load.finish() for name, load in self.loads.items()}
        self.host.run(
            "supervisorctl stop plain-worker; rm -rf /etc/supervisor/conf.d/plain-worker.conf /tmp/bench-*; "
            "supervisorctl update plain-worker"
        )
        assert not numbers["petct"]["lost"] and not numbers["petct"]["doubled"], numbers["petct"]
        return numbers

    def many(self) -> dict[str, Any]:
        """10,000 numbered tasks through three deploys and one rollback."""
        load = Load(self.host, "bench-many", 50.0, tasks=10_000)
        for _ in range(3):
            self.deploy(self.version())
        assert play("rollback", self.host, **SETTINGS).rc == 0
        return load.finish(stop=False, patience=200)


def main(arguments: list[str]) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="celery-ops-deploy-bookworm")
    parser.add_argument("--times", type=int, default=3, help="how often each is measured")
    parser.add_argument("--many", action="store_true", help="also 10,000 tasks through three deploys and a rollback")
    options = parser.parse_args(arguments)
    host = Host(options.host)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(host, Path(name))
        ours, plain = by_turns(options.times, bench.code, bench.plain)
        changed, pip = by_turns(options.times, bench.dependency, bench.pip)
        books = bench.finish()
        if options.many:
            books["many"] = bench.many()
    whole = "unpack, pip, restart of one worker"
    rows = [
        Row("code-only deploy, all of it", "s", ours, plain, whole, at_most=1.0),
        Row(
            "code-only deploy, until the new generation works",
            "s",
            statistics.median(bench.consuming),
            plain,
            whole,
            at_most=0.25,
        ),
        Row("dependency change, warm cache (15 s at most)", "s", changed, pip, "a new virtualenv by pip alone"),
    ]
    path = write(
        "deploy", rows, on=f"{host.name}, a container with the control node on the same machine, {RATE:g} tasks/s each",
        tasks={name: {**one, "lost": len(one["lost"]), "doubled": len(one["doubled"])} for name, one in books.items()},
    )  # fmt: skip
    for row in rows:
        print(f"{row.what}: {row.ours:.1f} {row.unit}, {row.peer_is}: {row.peer:.1f}, ratio {row.ratio:.2f}")
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
