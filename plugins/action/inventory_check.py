"""Read the inventory on the control node, and refuse what can't work, all of it at once, before a host changes."""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import mistakes_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.cross_host import left_behind
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import GROUPS, Inventory
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import generated, not_generated


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node, once for all hosts of the play."""

    def act(self) -> dict[str, Any]:
        """Fail with every mistake, numbered, or return the passwords to generate on each host; change nothing."""
        inventory = self.inventory()
        mistakes = mistakes_of(inventory, self._templar.is_template, self._task.args.get("only") or [])
        if not mistakes:
            if not self._task.args.get("only") and (behind := left_behind(inventory)):
                hosts = ", ".join(behind[:10]) + (f" and {len(behind) - 10} more" if behind[10:] else "")
                Display().warning(f"--limit leaves out {hosts}: they stay on the release that they have.")
            return {
                "changed": False,
                "generated": {} if self._task.args.get("only") else generated_on(inventory),
            }
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = [f"{number}. {text}" for number, text in enumerate(mistakes, 1)]
        return {
            "failed": True,
            "msg": "\n".join([f"The inventory has {count}; nothing was changed on any host.", *lines]),
        }

    def inventory(self) -> Inventory:
        """The hosts of this play that are in our groups, and the rest of our groups beside them."""
        reader = Reader(self.task_vars, self._templar)
        ours = list(dict.fromkeys(host for group in GROUPS for host in reader.members(group)))
        playing = set(self.task_vars["ansible_play_hosts_all"])
        hosts, twins = {name: reader.host(name, not_generated) for name in ours}, {}
        for host in hosts.values():
            host.share_values(twins, self._templar.is_template)
        return Inventory(
            hosts=[host for name, host in hosts.items() if name in playing],
            others=[host for name, host in hosts.items() if name not in playing],
            groups=reader.groups,
            prefix=reader.prefix,
            said_by_run=frozenset(load_extra_vars(self._loader)),
            action=str(self._templar.template(self.task_vars.get("__celery_action", "deploy"))),
            limit=str(self.task_vars.get("ansible_limit", "")),
        )


def generated_on(inventory: Inventory) -> dict[str, Any]:
    """By host, the passwords that this run is going to generate, in the words of the action credentials_check."""
    return {
        host.name: {
            "app": host.text("celery_app_name"),
            "directory": host.text("celery_app_secrets_dir"),
            "files": files,
            "broker": "rabbitmq" in host.groups,
        }
        for host in inventory.hosts
        if not host.true("celery_app_rotate_credentials") and (files := generated(host))
    }
