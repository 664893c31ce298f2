"""What experiments under load measured: a line of JSON for each, from which tests/chaos/report.py writes a page."""

from __future__ import annotations

import json
from typing import Any

from support.control import ROOT

RESULTS = ROOT / ".cache/chaos/results.jsonl"


def keep(row: dict[str, Any]) -> None:
    """Add a line to the results."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(json.dumps(row) + "\n")
