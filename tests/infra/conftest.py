"""What the infra tests share. They run after `molecule converge`, once for every host of the scenario."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import browser, screenshots  # noqa: F401
from support.control import EPHEMERAL
from support.host import Host, scenario_hosts
from xdist.scheduler import LoadScopeScheduling


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every test that asks for `host` on every host of the scenario, or on those it is marked for."""
    if "host" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only_on")
        hosts = [host for host in scenario_hosts() if not only or host.name.endswith(only.args)]
        assert hosts, f"no host of the scenario has a name that ends in one of {only}"
        metafunc.parametrize("host", hosts, ids=lambda host: host.name, scope="session", indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Uninstalls after everything else."""
    items.sort(key=lambda item: item.path.name == "test_uninstall.py")


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """A host of the scenario (in place of testinfra's own fixture of this name)."""
    return request.param


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds what the host's programs say to the report of a test that failed on it."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host:
        report.sections.append((f"{host.name}: programs and logs", host.diagnosis()))
    return report
