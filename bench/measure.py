#!/usr/bin/env python3
"""Measure deploys on one test host, beside the plain way, and print a table: `make bench`.

Everything runs under a steady load of numbered tasks whose books are kept (tests/chaos/ledger.py). Times are seconds
from the start of ansible-playbook, on a host that has deployed before.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/deploy"))

from lab import APP, BOOKS, HOSTS, LEDGER, Host, Load, Variants, command_of, deployed, play  # noqa: E402

RATE = 15.0  # tasks a second
STEADY = 20.0  # seconds of load before and after what is measured
WORKERS = [{"name": "default", "queues": [APP], "concurrency": 12}]


def began(host: Host, run: str) -> list[tuple[float, str]]:
    """When each task of a run began, and by which release."""
    lines = (line.split() for line in host.run(f"grep began {BOOKS}/{run}").splitlines())
    return sorted((float(at), release) for _, _, at, release, _ in lines)


def first_task_of(host: Host, run: str, release: str, since: float) -> float:
    """Seconds from `since` until that release began its first task."""
    return next(at for at, by in began(host, run) if by == release and at >= since) - since


def pause(seconds: float, load: Load) -> None:
    """Let the load run; a load that ends early is an error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if load.process.poll() is not None:
            raise SystemExit(f"the load ended early: {load.process.stdout and load.process.stdout.read()}")
        time.sleep(0.2)


def kit(host: Host, variants: Variants) -> dict[str, Any]:
    """A code-only deploy, then a rollback, by the kit."""
    steady = Load(host, "steady", RATE, 10_000)
    pause(STEADY, steady)
    quiet = steady.finish()

    load = Load(host, "kit", RATE, 10_000)
    pause(STEADY, load)
    old, begun = host.current(), time.time()
    run = deployed(
        host.name, celery_app_source=str(variants.make("b2", {"petct/__init__.py": "V = 2\n"})), **settings()
    )
    consuming = (host.current(), begun)
    pause(STEADY, load)
    back_at = time.time()
    back = play("rollback", host.name, **settings())
    assert back.rc == 0, back.text[-3000:]
    pause(STEADY, load)
    books = load.finish()
    return {
        "books": books,
        "wall": run.seconds,
        "consuming": first_task_of(host, "kit", *consuming),
        "rollback": back.seconds,
        "rollback_consuming": first_task_of(host, "kit", old, back_at),
        "steady_p99": quiet["wait_p99"],
    }


def plain(host: Host, variants: Variants, folder: Path) -> dict[str, Any]:
    """A code-only deploy by unpacking, pip and a restart."""
    for number in (1, 2):
        source = variants.make(f"p{number}", {"petct/__init__.py": f"V = {number}\n"})
        archive = folder / f"p{number}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(source, arcname=".")
    words = [word for word in command_of("deploy", host.name) if word != "playbooks/deploy.yml"]

    def run(number: int) -> float:
        begun = time.monotonic()
        extra = ["-e", json.dumps({"plain_archive": str(folder / f"p{number}.tar.gz")}), "bench/plain.yml"]
        subprocess.run([*words, *extra], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begun

    run(1)
    load = Load(host, "plain", RATE, 10_000, queue="plain")
    pause(STEADY, load)
    wall = run(2)
    pause(STEADY, load)
    books = load.finish()
    host.run(
        "supervisorctl stop plain-worker; rm /etc/supervisor/conf.d/plain-worker.conf; "
        "supervisorctl update plain-worker"
    )
    return {"books": books, "wall": wall}


def settings() -> dict[str, Any]:
    """What every deploy here is given."""
    return {"celery_worker_programs": WORKERS}


def ten_thousand(host: Host, variants: Variants) -> dict[str, Any]:
    """10,000 numbered tasks through three deploys and one rollback."""
    load = Load(host, "ten_thousand", 50.0, 10_000, patience=200)
    for number in (1, 2, 3):
        source = variants.make(f"t{number}", {"petct/__init__.py": f"T = {number}\n"})
        deployed(host.name, celery_app_source=str(source), **settings())
    assert play("rollback", host.name, **settings()).rc == 0
    return load.finish(stop=False)


def table(kit: dict[str, Any], plain: dict[str, Any], many: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    ours, theirs = kit["books"], plain["books"]
    gap = f"{theirs['without_consumer']} of {theirs['samples']}"
    rows = [
        (
            "code-only deploy, wall",
            f"{kit['wall']:.1f} s",
            f"{plain['wall']:.1f} s",
            f"{kit['wall'] / plain['wall']:.2f}",
        ),
        ("… until the new generation works", f"{kit['consuming']:.1f} s", "", ""),
        ("samples without a consumer", f"{ours['without_consumer']} of {ours['samples']}", gap, ""),
        ("tasks lost, doubled", books(ours), books(theirs), ""),
        (
            "queue wait p99",
            f"{ours['wait_p99']} s",
            f"{theirs['wait_p99']} s",
            f"{ours['wait_p99'] / theirs['wait_p99']:.2g}",
        ),
        ("… against steady state", f"{ours['wait_p99'] / kit['steady_p99']:.2f} times", "", ""),
        ("rollback, wall", f"{kit['rollback']:.1f} s", "", ""),
        ("… until the old release works again", f"{kit['rollback_consuming']:.1f} s", "", ""),
        ("10,000 tasks, 3 deploys, 1 rollback: lost, doubled", books(many), "", ""),
    ]
    head = "| | celery-ops | unpack + pip + restart | ratio |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def books(of: dict[str, Any]) -> str:
    """Lost and doubled, of how many."""
    return f"{len(of['lost'])}, {len(of['doubled'])} of {of['confirmed']}"


def main() -> None:
    """Entry point; molecule has made the hosts."""
    host = Host(HOSTS[0])
    subprocess.run(["docker", "cp", str(ROOT / "tests/chaos/ledger.py"), f"{host.name}:{LEDGER}"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants = Variants(folder / "variants")
        # Twice: the first makes the virtualenv, so that what follows is warm.
        for number in (0, 1):
            source = variants.make(f"b{number}", {"petct/__init__.py": f"V = {number}\n"})
            deployed(host.name, celery_app_source=str(source), **settings())
        ours = kit(host, variants)
        theirs = plain(host, variants, folder)
        many = ten_thousand(host, variants)
    print(f"{host.name}, {os.cpu_count()} cores, {platform.machine()}, {RATE:g} tasks/s, one machine for all\n")
    print(table(ours, theirs, many))
    print(json.dumps({"kit": ours, "plain": theirs, "many": many}))


if __name__ == "__main__":
    main()
