"""How the unit tests are spread over processes: file by file, as most of their time is waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from xdist.scheduler import LoadScopeScheduling

# Where Ansible looks for what our modules share.
ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "plugins/module_utils"))


class ByFile(LoadScopeScheduling):
    """One process a file."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The scheduler that xdist takes."""
    return ByFile(config, log)
