"""The hosts of the scenario: four that are one system, three of them brokers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.control import Variants, start
from support.host import APP, Host, scenario_hosts
from support.wait import wait_until


@pytest.fixture(scope="session")
def hub() -> Host:
    """Broker, result store, scheduler and web."""
    return scenario_hosts()[0]


@pytest.fixture(scope="session")
def workers() -> list[Host]:
    """The hosts with workers; the second one is a broker as well."""
    return list(scenario_hosts()[1:3])


@pytest.fixture(scope="session")
def brokers() -> list[Host]:
    """The hosts of the cluster."""
    hub, _, two, three = scenario_hosts()
    return [hub, two, three]


@pytest.fixture(scope="session")
def variants(tmp_path_factory) -> Variants:
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="session")
def load(workers) -> Callable[[int], AbstractContextManager[list]]:
    """A function that runs `soak.yml` meanwhile; its list has afterwards what that said, the exit code first.

    It begins when tasks run: a fault from then on meets a publisher with a connection.
    """
    begun = f"cat /var/lib/{APP}/ledger/run-* 2>/dev/null | grep -c began"

    @contextmanager
    def running(seconds: int) -> Iterator[list]:
        said: list = []
        # No host knows what the others did, so each waits for news until its patience is at an end.
        variables = {"celery_app_soak_rate": 20, "celery_app_soak_patience": 10}
        proof = start("soak", output=subprocess.PIPE, celery_app_soak_duration=seconds, **variables)
        try:
            wait_until(lambda: int(workers[0].ask(begun)) > 0, 60, "tasks of the load")
            yield said
            text = " ".join(proof.communicate(timeout=240)[0].split())
            said += [proof.returncode, text]
        finally:
            proof.kill()
            proof.wait()

    return running
