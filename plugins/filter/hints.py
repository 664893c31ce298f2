"""Commands to type in messages that a role writes; see plugin_utils/hints.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import command


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"command": command}
