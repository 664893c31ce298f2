"""The table of what was tried: what failed says so, whatever else of it passed."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "apps"))

import tried
from catalog import APPS, DOCS, editions
from tried import Tried, read_table, table


def report(test, outcome="passed", when="call", **versions):
    nodeid = f"tests/apps/test_apps.py::{test}"
    properties = [("versions", versions)] if versions else []
    return pytest.TestReport(nodeid, ("", 0, ""), {}, outcome, None, when, user_properties=properties)


def test_a_line_has_the_installed_versions_and_no_where_one_test_of_a_step_failed():
    tried = Tried("editions")
    versions = {"celery": "5.10.0", "kombu": "5.9.1", "redis": ""}
    for one in (
        report("test_a_task_goes_there_and_back[edition1-trixie]", **versions),
        report("test_its_page_answers_with_what_a_worker_did[edition1-trixie]", "failed", when="setup"),
        report("test_a_code_only_deploy_under_load_loses_nothing[edition1-trixie]"),
        report("test_a_code_only_deploy_under_load_loses_nothing[edition1-trixie]", when="teardown"),
        report("test_a_task_goes_there_and_back[edition1-bookworm]", celery="5.9.0", kombu="5.9.1", redis="6.0.0"),
        report("test_a_task_goes_there_and_back[digest]"),
    ):
        tried.pytest_runtest_logreport(one)
    assert table(tried.apps, tried.lines) == [
        "| Celery, kombu, redis-py | Debian | set-up, task | under load |",
        "|---|---|---|---|",
        "| 5.9.0, 5.9.1, 6.0.0 | 12 | yes | - |",
        "| 5.10.0, 5.9.1, none | 13 | no | yes |",
    ]


@pytest.mark.parametrize("selection", ["all", "editions"])
def test_a_table_that_is_read_is_written_as_it_was(selection):
    text = re.search(f"<!-- tried: {selection} -->\n(.*?)<!-- end -->", DOCS.read_text(), re.DOTALL)[1]
    apps = {app.label: app for app in tried.SELECTIONS[selection]}
    assert sorted(table(apps, read_table(text, apps))) == sorted(text.splitlines())


def test_what_did_not_run_keeps_its_line_in_the_docs(tmp_path, monkeypatch):
    monkeypatch.setattr(tried, "DOCS", tmp_path / "your-app.md")
    monkeypatch.setattr(tried, "RESULTS", tmp_path)
    tried.DOCS.write_text(DOCS.read_text())
    app = APPS[0]
    ran = {"versions": {"celery": "9.9.9", "kombu": "9.9.8", "redis": ""}, "steps": {"rollback": "no"}}
    (tmp_path / "tried-all.json").write_text(json.dumps({app.label: ran}))
    tried.main()
    before, after = (file.read_text().splitlines() for file in (DOCS, tried.DOCS))
    gone, new = set(before) - set(after), set(after) - set(before)
    assert ([f"`{app.name}`" in line for line in gone], len(after)) == ([True], len(before))
    assert [line.split(" | ")[0] for line in new] == ["| 9.9.9, 9.9.8, none"]


def test_a_line_of_a_version_that_is_not_required_any_more_goes():
    apps = {app.label: app for app in editions()}
    assert read_table("| Celery, kombu, redis-py | Debian |\n|---|---|\n| 4.4.7, 4.6.0, none | 12 |", apps) == {}
