"""Read the inventory on the control node, and refuse what can't work, all of it at once, before a host changes."""

from __future__ import annotations

from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import mistakes_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.cross_host import (
    left_behind,
    longest_time_limit,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    APP_GROUPS,
    GROUPS,
    ROOT,
    Host,
    Inventory,
    declared,
    trusted,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import generated, not_generated

PRIVATE = yaml.safe_load((ROOT / "roles/celery_app/vars/main.yml").read_text())
REFERRED_TO = ("__celery_app_longest_time_limit",)
"""Private variables that defaults refer to."""


class ActionModule(ActionBase):
    """Runs wholly on the control node, once for all hosts of the play."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every mistake, numbered, or return what host_check is to look for on each host; change nothing."""
        super().run(tmp, task_vars)
        inventory = self.inventory(task_vars or {})
        mistakes = mistakes_of(inventory, self._templar.is_template, self._task.args.get("only") or [])
        if not mistakes:
            if not self._task.args.get("only") and (behind := left_behind(inventory)):
                hosts = ", ".join(behind[:10]) + (f" and {len(behind) - 10} more" if behind[10:] else "")
                Display().warning(f"--limit leaves out {hosts}: they stay on the release that they have.")
            return {
                "changed": False,
                "wanted": {host.name: wanted_of(host) for host in inventory.hosts},
                "generated": {} if self._task.args.get("only") else generated_on(inventory),
            }
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = [f"{number}. {text}" for number, text in enumerate(mistakes, 1)]
        return {
            "failed": True,
            "msg": "\n".join([f"The inventory has {count}; nothing was changed on any host.", *lines]),
        }

    def inventory(self, task_vars: dict[str, Any]) -> Inventory:
        """The hosts of this play that are in our groups, and the rest of our groups beside them."""
        groups = {group: list(hosts) for group, hosts in task_vars["groups"].items()}
        ours = list(dict.fromkeys(host for group in GROUPS for host in groups.get(group, [])))
        playing = set(task_vars["ansible_play_hosts_all"])
        hosts, twins = {name: self.host(name, groups, task_vars) for name in ours}, {}
        for host in hosts.values():
            host.share_values(twins, self._templar.is_template)
        return Inventory(
            hosts=[host for name, host in hosts.items() if name in playing],
            others=[host for name, host in hosts.items() if name not in playing],
            groups=groups,
            said_by_run=frozenset(load_extra_vars(self._loader)),
            action=str(self._templar.template(task_vars.get("celery_app_action", "deploy"))),
            limit=str(task_vars.get("ansible_limit", "")),
        )

    def host(self, name: str, groups: dict[str, list[str]], task_vars: dict[str, Any]) -> Host:
        """A host as the rules see it: its own variables, evaluated among the roles' defaults when they ask."""
        given = task_vars["hostvars"].raw_get(name)
        around = {
            "hostvars": task_vars["hostvars"],
            "role_path": str(ROOT / "roles/any"),
            **{name: trusted(value) for name, value in PRIVATE.items() if name in REFERRED_TO},
            "__celery_app_hosts": [host for group in APP_GROUPS for host in groups.get(group, [])],
        }
        defaults = {variable: trusted(spec.get("default")) for variable, spec in declared().items()}
        templar = self._templar.copy_with_new_env(available_variables={**defaults, **around, **given})
        templar.available_variables = templar.available_variables | not_generated(given, templar.template)
        in_groups = frozenset(group for group in GROUPS if name in groups.get(group, []))
        return Host(name, given, in_groups, templar.template)


def generated_on(inventory: Inventory) -> dict[str, Any]:
    """By host, the passwords that this run is going to generate, in the words of the action credentials_check."""
    return {
        host.name: {
            "app": host.text("celery_app_name"),
            "folder": host.text("celery_app_secrets_dir"),
            "files": files,
            "broker": "rabbitmq" in host.groups,
        }
        for host in inventory.hosts
        if not host.true("celery_app_rotate_credentials") and (files := generated(host))
    }


def wanted_of(host: Host) -> dict[str, Any]:
    """What the host has to carry, in the words of the module host_check."""
    listeners = {
        f"{group}_port": f"{host.text(f'{group}_bind')}:{host.text(f'{group}_port')}"
        for group in ("rabbitmq", "result_store")
        if group in host.groups
    }
    if host.web_port is not None:
        listeners["celery_web_bind"] = host.text("celery_web_bind")
    # Its default is a share of the host's memory: that fits.
    store = "result_store" in host.groups and "result_store_max_memory" in host.given
    return {
        "app": host.text("celery_app_name"),
        "command": host.text("celery_app_command"),
        "groups": sorted(host.groups),
        "programs": host["celery_worker_programs"] if "worker" in host.groups else [],
        "overlap": host.text("celery_worker_handover") == "overlap",
        "python": host.text("celery_app_python"),
        "disk_free": host.int("host_disk_free"),
        "listeners": listeners,
        "node_name": host.text("rabbitmq_node_name") if "rabbitmq" in host.groups else "",
        "distribution_bind": host.text("rabbitmq_distribution_bind"),
        "broker_shared": host.true("rabbitmq_shared"),
        "time_limit": longest_time_limit(host)[0],
        "store_instance": host.text("result_store_instance"),
        "store_database": host.int("celery_app_result_store_database"),
        "store_database_is_set": "celery_app_result_store_database" in host.given,
        "store_memory": host.int("result_store_max_memory") if store else 0,
    }
