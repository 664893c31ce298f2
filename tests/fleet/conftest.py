"""The hosts of the scenario: three that are one system."""

import pytest
from support.control import Variants
from support.host import scenario_hosts


@pytest.fixture(scope="session")
def hub():
    return scenario_hosts()[0]


@pytest.fixture(scope="session")
def workers():
    return list(scenario_hosts()[1:])


@pytest.fixture(scope="session")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))
