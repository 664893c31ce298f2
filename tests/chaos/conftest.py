"""The host of the scenario."""

import pytest
from subject import Subject
from support.host import scenario_hosts


@pytest.fixture(scope="session")
def subject():
    [host] = scenario_hosts()
    return Subject(host.name)
