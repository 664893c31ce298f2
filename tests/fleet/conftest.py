"""The hosts of the scenario: four that are one system, three of them brokers."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.control import EPHEMERAL, Run, Variants, command_of, run, start
from support.host import APP, Host, scenario_hosts
from support.wait import wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sets the fleet up anew with one broker after everything else."""
    items.sort(key=lambda item: item.path.name == "test_growth.py")


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
    """Other releases, in which the scheduler's entries are the same."""
    return Variants(tmp_path_factory.mktemp("variants"), EPHEMERAL / "app")


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


@pytest.fixture
def regrouped(tmp_path) -> Callable[..., Callable[..., Run]]:
    """A function that returns how to run playbooks with an inventory in which some groups have other hosts.

    Variables of hosts may come first.
    """

    def of(variables: Mapping[str, Mapping[str, Any]] | None = None, /, **groups) -> Callable[..., Run]:
        inventory = yaml.safe_load((EPHEMERAL / "inventory/ansible_inventory.yml").read_text())
        for group, hosts in groups.items():
            inventory[group]["hosts"] = {host.name: inventory["all"]["hosts"][host.name] for host in hosts}
        for host, own in (variables or {}).items():
            inventory["all"]["hosts"][host].update(own)
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        # How they are reached is said beside it.
        for name in ("group_vars", "ssh.yml"):
            (directory / name).symlink_to((EPHEMERAL / "inventory" / name).resolve())
        (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))

        def play(name, *hosts, **variables) -> Run:
            words = command_of(name, *hosts, **variables)
            words[words.index("-i") + 1] = str(directory)
            return run(words)

        return play

    return of
