"""What a deploy changes: the commits between the release that runs and the new one, as git tells them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.celery_ops.kit.plugins.action.release_source import Address, git, is_git, mirror_of
from ansible_collections.celery_ops.kit.plugins.module_utils.notices import LINES, changes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, SOURCE


def of_run(variables: Mapping[str, Any]) -> list[str]:
    """Return the commits of this run's release that the one before has not, newest first; none where git has no say.

    Where it goes back to an older commit, what it takes away, each with a minus.
    """
    new = (variables.get(SOURCE) or {}).get("commit", "")
    old = (variables.get(BUILD) or {}).get("commit_before", "")
    if not new or not old or new == old:
        return []
    source = str(variables["celery_app_source"])
    if not is_git(source):
        return []
    address, cache = Address(source), Path(str(variables["celery_app_cache_dir"])).expanduser()

    def log(since: str, until: str) -> list[str]:
        words = ("log", "--no-decorate", "--format=%h %an: %s", f"{since}..{until}")
        return git(address, "--git-dir", str(mirror_of(address, cache)), *words).splitlines()

    try:
        return changes(log(old, new) or [f"- {line}" for line in log(new, old)], LINES)
    except AnsibleActionFail:  # the commit before is no longer there, as after a push by force
        return []
