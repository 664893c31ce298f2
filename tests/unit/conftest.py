"""How the unit tests are spread over processes: file by file, as most of their time is waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from xdist.scheduler import LoadScopeScheduling

# Where Ansible looks for what our modules share.
ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "plugins/module_utils"))

# Guard and watch look at all processes of the machine: side by side they would see each other's orphans.
TOGETHER = ("test_guard.py", "test_health.py")


class ByFile(LoadScopeScheduling):
    """One process a file, but for those that must not run side by side."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER[0] if file.endswith(TOGETHER) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The scheduler that xdist takes."""
    return ByFile(config, log)
