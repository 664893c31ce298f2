"""The hosts of the scenario, set up with the first good release."""

import pytest
from support.control import Variants, play
from support.host import scenario_hosts
from support.wait import wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rotates the passwords after everything else: the scenario's own are the old ones then."""
    items.sort(key=lambda item: item.path.name == "test_rotate_secrets.py")


@pytest.fixture(scope="session")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="session")
def hosts(variants):
    run = play("site", celery_app_source=str(variants.make("v1")), **SETTINGS)
    assert run.rc == 0, run.text[-6000:]
    return list(scenario_hosts())


# More slots than two, so that the load's long tasks leave room for the short ones.
SETTINGS = {"celery_worker_programs": [{"name": "default", "queues": ["petct"], "concurrency": 12}]}


@pytest.fixture(scope="session")
def settings():
    return SETTINGS


@pytest.fixture
def good(hosts):
    """What runs before the test: release and worker processes by host."""
    # Supervisor calls a worker RUNNING ten seconds after its start; the test before may have rolled back just now.
    for host in hosts:
        wait_until(lambda host=host: len(host.workers()) == 1, 30, f"one worker program on {host}")
    return {host: (host.current(), host.workers()) for host in hosts}
