"""What the infra tests share. They run after `molecule converge`, once for every host of the scenario."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from system import EPHEMERAL, System
from xdist.scheduler import LoadScopeScheduling


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every test that asks for `system` on every platform of the scenario, or on the one it is marked for."""
    if "system" not in metafunc.fixturenames:
        return
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/infra needs the hosts of a molecule scenario; type: molecule verify")
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    systems = [System(platform["name"], has_systemd="command" not in platform) for platform in platforms]
    if only := metafunc.definition.get_closest_marker("only_on"):
        systems = [system for system in systems if system.name.endswith(only.args[0])]
    metafunc.parametrize("system", systems, ids=lambda system: system.name, scope="session")


class ByHost(LoadScopeScheduling):
    """Each host is tested by one process: they are independent, but a host's own tests are not."""

    def _split_scope(self, nodeid: str) -> str:
        host = re.search(r"celery-ops-[a-z]+", nodeid.partition("[")[2])
        return host[0] if host else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How the tests are spread over processes."""
    return ByHost(config, log)


@pytest.fixture
def secrets() -> dict[str, str]:
    """The secrets that the control node generated for these hosts, by name."""
    found = {path.name: path.read_text().strip() for path in (EPHEMERAL / "secrets").iterdir()}
    found = {name: value for name, value in found.items() if len(value) >= 16}  # a salt is no secret
    assert found, f"No secrets in {EPHEMERAL}/secrets: is celery_app_secrets_dir set for this scenario?"
    return found


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder for pictures of what was on the screen."""
    folder = Path(os.environ.get("CELERY_OPS_SCREENSHOTS", EPHEMERAL / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds what the host's programs say to the report of a test that failed on it."""
    report = yield
    system = getattr(item, "funcargs", {}).get("system")
    if report.failed and system:
        report.sections.append((f"{system.name}: programs and logs", system.diagnosis()))
    return report
