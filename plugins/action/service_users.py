"""Look who else uses a host's services, and spell the commands in what is said as the operator types them."""

from __future__ import annotations

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action as ActionModule

__all__ = ["ActionModule"]
