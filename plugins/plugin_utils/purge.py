"""The verb `purge`: the command that counts or moves the messages of a queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import worker_programs_of_hosts


def purge(variables: Mapping[str, Any]) -> list[str]:
    """Return the command; the queues that the inventory's programs consume are the application's own."""
    programs = [entry for entries in worker_programs_of_hosts(variables) for entry in entries]
    known = sorted({str(queue) for entry in programs for queue in entry.get("queues") or ()})
    app = str(variables["celery_app_name"])
    return [
        *("celery-ops-dead-letters", "purge", "-A", str(variables["celery_app_module"])),
        *("--queue", Layout(app).dead_queue, "--source", str(variables["celery_app_purge"])),
        *("--known", ",".join([*known, app])),
    ]
