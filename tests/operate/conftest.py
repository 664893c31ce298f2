"""The host of the scenario, with the reference application on it."""

import pytest
from support.browser import browser, screenshots  # noqa: F401
from support.host import Host, scenario_hosts


@pytest.fixture(scope="session")
def host() -> Host:
    """The one host of the scenario (in place of testinfra's own fixture of this name)."""
    (host,) = scenario_hosts()
    return host
