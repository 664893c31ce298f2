"""What was tried with which versions: a table at the end of the tests, and the tables of the docs.

`python3 tests/apps/tried.py` writes the results of `make apps` and `make matrix` (.cache/tried-*.json) into
docs/your-app.md. What did not run keeps its line there.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from catalog import APPS, DOCS, App, editions

RESULTS = DOCS.parents[1] / ".cache"
STEPS = {
    "there_and_back": "set-up, task",
    "its_page_answers": "set-up, task",
    "users_commands": "set-up, task",
    "deploy_under_load": "under load",
    "rollback_goes": "rollback",
    "broken_release": "goes back",
    "second_run": "second run",
}
"""A column's title by a part of the test's name."""
CLIENTS = ("celery", "kombu", "redis")
VERSIONS, DEBIAN, APPLICATION = "Celery, kombu, redis-py", "Debian", "application"
DEBIANS = {"bookworm": "12", "trixie": "13"}
SELECTIONS = {"all": APPS, "editions": editions()}


class Tried:
    """Hears of every test; at the end prints a table and keeps it."""

    def __init__(self, selection: str) -> None:
        self.path = RESULTS / f"tried-{selection}.json"
        self.apps = {app.label: app for app in SELECTIONS[selection]}
        self.lines: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended; a set-up that failed is the test's end, too."""
        label = report.nodeid.rpartition("[")[2].rstrip("]")
        step = next((title for part, title in STEPS.items() if part in report.nodeid), "")
        if label not in self.apps or not step or (report.when != "call" and report.passed):
            return
        line = self.lines.setdefault(label, {"versions": {}, "steps": {}})
        line["versions"].update(dict(report.user_properties).get("versions", {}))
        line["steps"][step] = "yes" if report.passed and line["steps"].get(step) != "no" else "no"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and keep its lines for the docs."""
        if not self.lines:
            return
        RESULTS.mkdir(exist_ok=True)
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.path.write_text(json.dumps({**kept, **self.lines}, indent=1))
        terminalreporter.section("tried")
        for line in table(self.apps, self.lines):
            terminalreporter.write_line(line)


def table(apps: dict[str, App], lines: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table of these applications."""
    columns = [
        title for title in dict.fromkeys(STEPS.values()) if any(title in line["steps"] for line in lines.values())
    ]
    about = any(apps[label].about for label in lines)
    head = [VERSIONS, DEBIAN, *([APPLICATION] if about else []), *columns]
    rows = []
    for label, line in lines.items():
        app, versions = apps[label], line["versions"]
        cells = [
            ", ".join(versions.get(name) or "none" for name in CLIENTS),
            DEBIANS[app.debian],
            *([f"`{app.name}`: {app.about}"] if about else []),
            *(line["steps"].get(title, "-") for title in columns),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    rows.sort(key=lambda row: [int(number) for number in re.findall(r"\d+", row.replace("none", "0"))])
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows]


def read_table(text: str, apps: dict[str, App]) -> dict[str, dict[str, Any]]:
    """What a table says, by the label of the application; without those that are gone."""
    head, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.strip().splitlines()]
    lines = {}
    for cells in (dict(zip(head, row, strict=True)) for row in rows):
        versions = [version.replace("none", "") for version in cells[VERSIONS].split(", ")]
        steps = {title: cells[title] for title in STEPS.values() if cells.get(title, "-") != "-"}
        line = {"versions": dict(zip(CLIENTS, versions, strict=True)), "steps": steps}
        lines |= {label: line for label, app in apps.items() if is_row_of(app, cells, versions)}
    return lines


def is_row_of(app: App, cells: dict[str, str], versions: list[str]) -> bool:
    """Whether a row is about this application: by what it says of it, or by the versions that it requires."""
    if DEBIANS[app.debian] != cells[DEBIAN]:
        return False
    if app.about:
        return cells[APPLICATION].endswith(f": {app.about}")
    required = {line.partition(";")[0] for line in app.files["requirements.txt"].split()}
    return {f"{name}=={version}" for name, version in zip(CLIENTS[:2], versions, strict=False)} <= required


def main() -> None:
    """Write the tables of the results that are there."""
    text = DOCS.read_text(encoding="utf-8")
    for selection, apps in SELECTIONS.items():
        path = RESULTS / f"tried-{selection}.json"
        if not path.exists():
            continue
        by_label = {app.label: app for app in apps}
        lines = {label: line for label, line in json.loads(path.read_text()).items() if label in by_label}
        marks = f"<!-- tried: {selection} -->", "<!-- end -->"
        before, _, rest = text.partition(marks[0])
        kept, _, rest = rest.partition(marks[1])
        lines = read_table(kept, by_label) | lines
        text = "\n".join([before + marks[0], *table(by_label, lines), marks[1] + rest])
    DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
