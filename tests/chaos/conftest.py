"""The host of the scenario, and the results."""

import os
from pathlib import Path

import pytest
import yaml
from subject import Subject


@pytest.fixture(scope="session")
def subject():
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/chaos needs the host of a molecule scenario; type: make molecule, or make chaos")
    [platform] = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return Subject(platform["name"])
