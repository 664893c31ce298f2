"""Refuse hosts that can't form one RabbitMQ cluster, before any of them is changed."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import refusals


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node, once for all hosts of the play."""

    def act(self) -> dict[str, Any]:
        """Fail with everything that is in the way."""
        nodes = [node["name"] for node in self._task.args["nodes"]]
        found = refusals(nodes, self._task.args["found"], boolean(self._task.args.get("tls", False)))
        if not found:
            return {"changed": False}
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        return {
            "failed": True,
            "msg": "\n".join(["These hosts can't form one RabbitMQ cluster; nothing was changed.", *lines]),
        }
