"""The layout of an application for Jinja: module_utils/layout.py is where all of it is written."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    HOUSEKEEPING_QUEUES,
    Layout,
    consumer_timeout,
    stop_timeout,
    supervisor_stop_timeout,
)


def layout(app: str) -> dict[str, str]:
    """Return the paths and names of an application, and the pattern of housekeeping queues, by their names."""
    names = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    return {"housekeeping_queues": HOUSEKEEPING_QUEUES, **{name: str(getattr(Layout(app), name)) for name in names}}


class FilterModule:
    """Ansible's way to find the filters."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        times = (stop_timeout, supervisor_stop_timeout, consumer_timeout)
        return {"layout": layout, **{function.__name__: lambda limit, f=function: f(int(limit)) for function in times}}
