#!/usr/bin/env python3
"""Measure deploys on one test host, beside the plain way, and print a table: `make bench`.

Everything runs under a steady load of numbered tasks (tests/support/load.py). Times are seconds
from the start of ansible-playbook, on a host that has deployed before.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.control import Variants, command_of, deployed, play  # noqa: E402
from support.host import APP, Host  # noqa: E402
from support.load import Load  # noqa: E402

RATE = 15.0  # tasks a second
STEADY = 20.0  # seconds of load before and after what is measured
TIMES = 3  # how often each is measured: the table has the medians
WORKERS = [{"name": "default", "queues": [APP], "concurrency": 12}]


def first_task_of(load: Load, release: str, since: float) -> float:
    """Seconds from `since` until that release began its first task."""
    return next(at for at, by in load.executions() if by == release and at >= since) - since


def pause(seconds: float, load: Load) -> None:
    """Let the load run; a load that ends early is an error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if load.process.poll() is not None:
            raise SystemExit(f"the load ended early: {load.process.stdout and load.process.stdout.read()}")
        time.sleep(0.2)


def kit(host: Host, variants: Variants) -> dict[str, Any]:
    """Code-only deploys and rollbacks by the kit."""
    steady = Load(host, "steady", RATE)
    pause(STEADY, steady)
    quiet = steady.finish()

    load = Load(host, "kit", RATE)
    pause(STEADY, load)
    times: dict[str, list[float]] = {"wall": [], "consuming": [], "rollback": [], "rollback_consuming": []}
    for number in range(TIMES):
        old, begun = host.current(), time.time()
        source = variants.make(f"k{number}", {"petct/__init__.py": f"K = {number}\n"})
        times["wall"].append(deployed(host, celery_app_source=str(source), **settings()).seconds)
        times["consuming"].append(first_task_of(load, host.current(), begun))
        pause(STEADY, load)
        begun = time.time()
        back = play("rollback", host, **settings())
        assert back.rc == 0, back.text[-3000:]
        times["rollback"].append(back.seconds)
        times["rollback_consuming"].append(first_task_of(load, old, begun))
        pause(STEADY, load)
    return {"numbers": load.finish(), "steady_p99": quiet["wait_p99"], **times}


def plain(host: Host, variants: Variants, directory: Path) -> dict[str, Any]:
    """Code-only deploys by unpacking, pip and a restart."""
    words = [word for word in command_of("deploy", host) if word != "playbooks/deploy.yml"]

    def run(number: int) -> float:
        archive = directory / f"p{number}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(variants.make(f"p{number}", {"petct/__init__.py": f"P = {number}\n"}), arcname=".")
        extra = ["-e", json.dumps({"plain_archive": str(archive)}), "bench/plain.yml"]
        begun = time.monotonic()
        subprocess.run([*words, *extra], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begun

    run(0)
    load, wall = Load(host, "plain", RATE, queue="plain"), []
    for number in range(TIMES):
        pause(STEADY, load)
        wall.append(run(number + 1))
    pause(STEADY, load)
    numbers = load.finish()
    host.run(
        "supervisorctl stop plain-worker; rm /etc/supervisor/conf.d/plain-worker.conf; "
        "supervisorctl update plain-worker"
    )
    return {"numbers": numbers, "wall": wall}


def settings() -> dict[str, Any]:
    """What every deploy here is given."""
    return {"celery_worker_programs": WORKERS}


def ten_thousand(host: Host, variants: Variants) -> dict[str, Any]:
    """10,000 numbered tasks through three deploys and one rollback."""
    load = Load(host, "ten_thousand", 50.0, tasks=10_000)
    for number in (1, 2, 3):
        source = variants.make(f"t{number}", {"petct/__init__.py": f"T = {number}\n"})
        deployed(host, celery_app_source=str(source), **settings())
    assert play("rollback", host, **settings()).rc == 0
    return load.finish(stop=False, patience=200)


def table(kit: dict[str, Any], plain: dict[str, Any], many: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    ours, theirs = kit["numbers"], plain["numbers"]
    gap = f"{theirs['without_consumer']} of {theirs['samples']}"
    times = f"{ours['wait_p99'] / kit['steady_p99']:.1f} times steady state"
    rows = [
        ("samples without a consumer", f"{ours['without_consumer']} of {ours['samples']}", gap, ""),
        ("queue wait p99", f"{ours['wait_p99']} s ({times})", f"{theirs['wait_p99']} s", ""),
        ("queue wait, longest", f"{ours['wait_max']} s", f"{theirs['wait_max']} s", ""),
        ("tasks lost, doubled", lost_and_doubled(ours), lost_and_doubled(theirs), ""),
        (
            "code-only deploy, until the new generation works; the plain way's whole",
            spread(kit["consuming"]),
            spread(plain["wall"]),
            f"{statistics.median(kit['consuming']) / statistics.median(plain['wall']):.2f}",
        ),
        ("code-only deploy, all of it", spread(kit["wall"]), "", ""),
        ("rollback, until the old release works", spread(kit["rollback_consuming"]), "", ""),
        ("rollback, all of it", spread(kit["rollback"]), "", ""),
        ("10,000 tasks, 3 deploys, 1 rollback: lost, doubled", lost_and_doubled(many), "", ""),
    ]
    head = "| | celery-ops | unpack + pip + restart | ratio |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def spread(seconds: list[float]) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def lost_and_doubled(of: dict[str, Any]) -> str:
    """Lost and doubled, of how many."""
    return f"{len(of['lost'])}, {len(of['doubled'])} of {of['confirmed']}"


def main() -> None:
    """Entry point; molecule has made the hosts."""
    host = Host("celery-ops-deploy-bookworm")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        variants = Variants(directory / "variants")
        # Twice: the first makes the virtualenv, so that what follows is warm.
        for number in (0, 1):
            source = variants.make(f"b{number}", {"petct/__init__.py": f"V = {number}\n"})
            deployed(host, celery_app_source=str(source), **settings())
        ours = kit(host, variants)
        theirs = plain(host, variants, directory)
        many = ten_thousand(host, variants)
    print(f"{host.name}, {os.cpu_count()} cores, {platform.machine()}, {RATE:g} tasks/s, one machine for all\n")
    print(table(ours, theirs, many))
    print(json.dumps({"kit": ours, "plain": theirs, "many": many}))


if __name__ == "__main__":
    main()
