"""What experiments under load measured: a line of JSON for each, from which tests/chaos/report.py writes a page."""

from __future__ import annotations

import json
from typing import Any

from support.control import ROOT
from support.host import APP, Host

RESULTS = ROOT / ".cache/chaos/results.jsonl"


def keep(row: dict[str, Any]) -> None:
    """Add a line to the results."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(json.dumps(row) + "\n")


def keep_of_cluster(fault: str, numbers: dict[str, Any], node: Host, worker: Host) -> None:
    """Add the reconciled numbers of a load under a fault of a cluster's nodes, and the versions of what took part."""
    python = f"/srv/{APP}/current/venv/bin/python -c"
    versions = {
        "debian": node.output("cat /etc/debian_version"),
        "rabbitmq": node.output("dpkg-query --show --showformat '${Version}' rabbitmq-server").partition("-")[0],
        "celery": worker.output(f'{python} "import celery; print(celery.__version__)"'),
        "supervisor": worker.output("supervisord --version"),
    }
    counts = {name: len(numbers[name]) for name in ("lost", "doubled")}
    times = {name: numbers[name] for name in ("confirmed", "confirm_p99", "stall", "standstill")}
    keep({"fault": fault, **counts, **times, **versions})
