"""The hosts of the scenario: what the deploy tests' lab has, for three hosts that are one system."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy"))

from lab import Host, Variants


def host(name):
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/fleet needs the hosts of a molecule scenario; type: make molecule")
    return Host(f"celery-ops-fleet-{name}")


@pytest.fixture(scope="session")
def hub():
    return host("hub")


@pytest.fixture(scope="session")
def workers():
    return [host("one"), host("two")]


@pytest.fixture(scope="session")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))
