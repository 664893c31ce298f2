"""What experiments under load measured: a line of JSON for each, from which tests/chaos/report.py writes a page."""

from __future__ import annotations

import json
import re
from typing import Any

from support.control import ROOT
from support.host import APP, Host

RESULTS = ROOT / ".cache/chaos/results.jsonl"


def keep(row: dict[str, Any]) -> None:
    """Add a line to the results."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(json.dumps(row) + "\n")


def keep_of_cluster(fault: str, said: str, node: Host, worker: Host) -> None:
    """Add what soak.yml said of a fault of a cluster's nodes, and the versions of what took part."""
    python = f"/srv/{APP}/current/venv/bin/python -c"
    versions = {
        "debian": node.output("cat /etc/debian_version"),
        "rabbitmq": node.output("dpkg-query --show --showformat '${Version}' rabbitmq-server").partition("-")[0],
        "celery": worker.output(f'{python} "import celery; print(celery.__version__)"'),
        "supervisor": worker.output("supervisord --version"),
    }
    keep({"fault": fault, **counted(said), **versions})


def counted(said: str) -> dict[str, float]:
    """Return the numbers in what soak.yml says."""
    names = {
        "confirmed": r"(\d+) of \d+ tasks were confirmed",
        "lost": r"(\d+) lost",
        "doubled": r"(\d+) doubled",
        "confirm_p99": r"99 of 100 publishes were confirmed within ([\d.]+) s",
        "stall": r"at most ([\d.]+) s without a confirm",
        "standstill": r"([\d.]+) s without a task begun",
    }
    return {name: float(re.search(pattern, said)[1]) for name, pattern in names.items()}
