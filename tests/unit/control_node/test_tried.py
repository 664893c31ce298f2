"""The table of what was tried: what failed says so, whatever else of it passed."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "apps"))

from tried import Tried, table


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
