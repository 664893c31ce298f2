#!/usr/bin/env python3
"""site.yml where nothing is to change, with its check, beside the limit: one module that looks at 100 paths.

`python3 bench/converge.py [HOST]`: the host, and the others of its inventory, have the kit on them. Times are those of
ansible-playbook from start to end, in turns; a run that changes something is an error. A further host costs what a run
on all hosts takes longer than one on the first, by the number of the others; all of them are containers
of this machine and share its cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.control import EPHEMERAL, play  # noqa: E402
from support.host import Host  # noqa: E402
from tables import Row, by_turns, write  # noqa: E402

TIMES = 5
PATHS = 100


def site(*hosts: Host) -> float:
    """Seconds of a site.yml that changes nothing."""
    run = play("site", *hosts)
    assert run.rc == 0, run.text[-3000:]
    assert not any(run.changed.values()), f"something was changed: {run.changed}"
    return run.seconds


def look(*hosts: Host) -> float:
    """Seconds of a play with one module that looks at as many paths as a host may have of ours."""
    [found] = {host.output(f"ls -d /usr/share/doc/* | head -{PATHS}") for host in hosts[:1]}
    steps = [{"directory": path} for path in found.splitlines()]
    task = {"celery_ops.kit.host_state": {"steps": steps}, "check_mode": True}
    names = ",".join(host.name for host in hosts)
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump([{"hosts": names, "become": True, "gather_facts": False, "tasks": [task]}], file)
        file.flush()
        begun = time.monotonic()
        subprocess.run(
            ["ansible-playbook", "-i", f"{EPHEMERAL}/inventory", file.name],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return time.monotonic() - begun


def names() -> list[str]:
    """The hosts of the inventory that run workers."""
    words = ["ansible-inventory", "-i", f"{EPHEMERAL}/inventory", "--list"]
    listed = json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    return list(listed["worker"]["hosts"])


def unchanged(host: Host) -> list[Row]:
    """One host, and what each further one costs."""
    others = [Host(name) for name in names() if name != host.name]
    hosts = [host, *others]
    assert play("site", *hosts).rc == 0  # what may still have to change
    limit = f"one module that looks at {PATHS} paths"
    if not others:
        ours, bare = by_turns(TIMES, lambda: site(host), lambda: look(host))
        return [Row("site.yml that changes nothing, with its check", "s", ours, bare, limit, at_most=7.3)]
    ours, bare, all_ours, all_bare = by_turns(
        TIMES - 2, lambda: site(host), lambda: look(host), lambda: site(*hosts), lambda: look(*hosts)
    )
    further = [max(0.01, (together - one) / len(others)) for together, one in ((all_ours, ours), (all_bare, bare))]
    return [
        Row("site.yml that changes nothing, with its check", "s", ours, bare, limit, at_most=7.3),
        Row("the same, each further host", "s", further[0], bare, limit),
    ]


def main(arguments: list[str]) -> None:
    """Entry point."""
    host = Host(arguments[0] if arguments else "celery-ops-deploy-bookworm")
    write("converge", unchanged(host), on="Debian 12 containers, control node on the same machine")


if __name__ == "__main__":
    main(sys.argv[1:])
