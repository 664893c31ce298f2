"""The oldest supported Celery, kombu and redis-py: the contract with their insides. All versions: `make matrix`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.stage import RUNTIME

ROOT = RUNTIME.parent
VERSIONS = (ROOT / "tests/matrix/versions.txt").read_text().splitlines()
TESTS = (
    *("contract", "apply", "settings", "consumer", "clock", "prefork", "schedule"),
    *("lease", "leader", "large_results", "results", "routes", "store_away", "storing", "frames"),
)


@pytest.mark.timeout(300)
def test_what_the_runtime_touches_is_in_the_oldest_versions_too(tmp_path):
    oldest = next(line.split() for line in VERSIONS if not line.startswith("#"))
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pytest", *oldest], check=True
    )  # fmt: skip
    done = subprocess.run(
        [
            *(python, "-B", "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ROOT, "-p", "no:cacheprovider"),
            *("--confcutdir", Path(__file__).parent, *(Path(__file__).with_name(f"test_{name}.py") for name in TESTS)),
        ],
        env={**os.environ, "PYTHONPATH": f"{RUNTIME}:{ROOT / 'tests'}", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
