"""Join or leave a cluster of brokers, and spell the commands in what is said as the operator types them."""

from __future__ import annotations

from ansible_collections.celery_ops.kit.plugins.action.host_check import ActionModule  # noqa: F401 - it is the same
