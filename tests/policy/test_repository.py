"""The repository as a whole: locks, paths, and tests that really are there."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys

import pytest
from kit import ROOT, load, tracked_files

# What has a requirements.in is locked; tests/apps are other people's applications, as they come.
LOCKS = [path for path in tracked_files() if path.name == "requirements.txt" and "tests/apps" not in str(path)]
SCENARIOS = [path for path in sorted((ROOT / "molecule").iterdir()) if path.name != "shared"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_pin_every_package_by_hash_and_name_no_index(lock):
    text = lock.read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|https?://", text)


def test_no_file_names_the_folder_it_was_written_in():
    here = f"{ROOT}/".encode()
    assert [str(path) for path in tracked_files() if here in path.read_bytes()] == []


def test_every_scenario_has_hosts_and_tests():
    assert SCENARIOS
    base = load(ROOT / ".config/molecule/config.yml")
    for scenario in SCENARIOS:
        config = base | load(scenario / "molecule.yml")
        assert config["platforms"], scenario
        tests = scenario / (config.get("verifier") or {}).get("directory", base["verifier"]["directory"])
        assert list(tests.glob("test_*.py")), f"{scenario.name}: no tests in {tests}"


def test_every_folder_that_pytest_is_told_of_has_tests():
    config = configparser.ConfigParser()
    config.read(ROOT / "pytest.ini")
    for folder in config["pytest"]["testpaths"].split():
        assert list((ROOT / folder).rglob("test_*.py")), folder


def test_ci_runs_what_a_person_runs():
    ci = ROOT / ".ci/run"
    assert os.access(ci, os.X_OK)
    assert ci.read_text().splitlines()[-1] == "exec make test"


def test_an_idle_ssh_connection_shows_that_it_lives_and_is_used_again():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "ansible.cfg")
    options = config["ssh_connection"]["ssh_args"]
    assert int(re.search(r"-o ServerAliveInterval=(\d+)", options)[1]) <= 60
    assert int(re.search(r"-o ServerAliveCountMax=(\d+)", options)[1]) > 1
    assert {"ControlMaster=auto", "ControlPersist=60s"} <= set(options.split())


def test_generated_pages_are_current():
    check = subprocess.run(
        (sys.executable, ROOT / "docs/variables.py", "--check"), capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, f"{check.stdout}Type: python3 docs/variables.py"
