#!/usr/bin/env python3
"""Write docs/performance.md and README's table from bench/results; `--check` only says whether they are current."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tables import RESULTS, ROOT

PAGE, README = ROOT / "docs/performance.md", ROOT / "README.md"
HEAD = """# Performance

Written by `bench/page.py` from the results of `make bench`; every number was measured. Each is a median, beside its
peer or limit, taken in turns with it in the same run: the ratio counts, not the time.
[bench/README.md](../bench/README.md) says what each number means and how to repeat it.
"""
PARTS = {
    "fresh": "Set-up",
    "converge": "Set-up with nothing to change",
    "deploy": "Deploys",
    "volumes": "Volumes as results",
    "throughput": "Publishing and working",
}
LOSS = """Deploys under a steady load, with the kit (`petct`) and done plainly, by unpack, pip and restart (`plain`):

"""
RATIOS = """Medians, each beside its peer or limit in the same run, and the ratio that we want to reach
([more, and on what it was measured](docs/performance.md)):

"""
COLUMNS = ("", "celery-ops", "beside it", "ratio", "to reach", "")
TABLE = re.compile(r"(<!-- bench/page.py writes this table -->\n).*?(<!-- end -->\n)", re.DOTALL)


def number(value: float) -> str:
    """Three digits that matter; thousands in groups."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of a result as the cells of a table."""
    bounds = ((sign, row[name]) for sign, name in (("≤", "at_most"), ("≥", "at_least")) if row[name] is not None)
    verdict = {True: "reached", False: "not reached", None: ""}[row["reached"]]
    return (
        row["what"],
        f"{number(row['ours'])} {row['unit']}",
        f"{number(row['peer'])} {row['unit']} ({row['peer_is']})",
        f"{row['ratio']:.2f}",
        ", ".join(f"{sign} {bound:g}" for sign, bound in bounds),
        verdict,
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def books(tasks: dict[str, dict[str, Any]]) -> str:
    """What became of the tasks under load while it was measured, as a Markdown table."""
    lines = [("tasks", "confirmed", "lost", "doubled", "samples without a consumer", "wait p99", "longest wait")]
    lines.append(("---",) * 7)
    for name, one in tasks.items():
        gap = f"{one['without_consumer']} of {one['samples']}"
        waits = (f"{number(one[wait])} s" for wait in ("wait_p99", "wait_max"))
        lines.append((name, number(one["confirmed"]), str(one["lost"]), str(one["doubled"]), gap, *waits))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(series: dict[str, Any]) -> str:
    """A series as a chart that GitHub draws; its lines are named in the order in which they are drawn."""
    lines = series["lines"]
    top = max(max(values) for values in lines.values())
    return "\n".join(
        [
            f"{series['title']} (lines: {', '.join(lines)}):\n",
            "```mermaid",
            "xychart-beta",
            f'    x-axis "{series["x_is"]}" [{", ".join(map(str, series["x"]))}]',
            f'    y-axis "{series["y_is"]}" 0 --> {top * 1.1:.3g}',
            *(f"    line [{', '.join(f'{value:.4g}' for value in values)}]" for values in lines.values()),
            "```\n",
        ]
    )


def page(results: dict[str, dict[str, Any]]) -> str:
    """docs/performance.md: a table for every part that has a result, then its plots."""
    text = HEAD
    for name, title in PARTS.items():
        if name not in results:
            continue
        result = results[name]
        text += f"\n## {title}\n\nOn {result['on']}; commit {result['commit']}, {result['at']}.\n\n"
        text += table(result["rows"])
        text += f"\n{books(result['tasks'])}" if "tasks" in result else ""
        text += "".join(f"\n{plot(series)}" for series in result.get("series", ()))
    return text


def readme(text: str, results: dict[str, dict[str, Any]]) -> str:
    """README with what became of the tasks of deploys, and the rows that have a ratio to reach."""
    rows = [row for name in PARTS if name in results for row in results[name]["rows"] if row["reached"] is not None]
    tasks = "".join(f"{LOSS}{books(one['tasks'])}\n" for one in results.values() if "tasks" in one)
    return TABLE.sub(lambda found: found[1] + tasks + RATIOS + table(rows) + found[2], text)


def main() -> None:
    """Entry point."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    if not results:
        sys.exit()  # nothing was measured: README keeps its table
    pages = {PAGE: page(results), README: readme(README.read_text(), results)}
    if sys.argv[1:] == ["--check"]:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"not current: {', '.join(stale)}. Type: python3 bench/page.py" if stale else 0)
    for path, text in pages.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
