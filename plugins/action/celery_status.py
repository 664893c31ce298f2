"""Look at an application on a host: what is asked depends on the host's groups."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import APP_GROUPS
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members, cluster_nodes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import is_under_way
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables, members_of_app


class ActionModule(Action):
    """Runs the module of the same name."""

    def act(self) -> dict[str, Any]:
        """Return the module's own answer."""
        return self.run_module(arguments_of(self.variables))


def arguments_of(variables: Variables) -> dict[str, Any]:
    """Return the module's arguments; the broker is asked where a worker can, and where it is not the kit's own."""
    app, groups = variables["celery_app_name"], variables["group_names"]
    asks = "worker" in groups and variables["celery_app_broker_url"]
    words = ["celery-ops-queues", "-A", variables["celery_app_module"]] if asks else []
    hosts = variables["hostvars"]
    nodes = cluster_nodes(cluster_members(variables["groups"], hosts.__getitem__), hosts.__getitem__)
    return {
        "app": app,
        "host": variables["inventory_hostname"],
        "programs": not APP_GROUPS.isdisjoint(groups),
        "broker": "rabbitmq" in groups,
        "store": "result_store" in groups,
        "groups": members_of_app(variables) if "rabbitmq" in groups else {},
        "nodes": [node["name"] for node in nodes] if "rabbitmq" in groups else [],
        "flower": variables.get("flower_host", "") == variables["inventory_hostname"],
        "rotation": is_under_way(variables["celery_app_secrets_dir"], app),
        "ask_broker": Deployment.current(app).as_app(words),
    }
