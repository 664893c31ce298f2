"""Read the inventory on the control node, and refuse what can't work, all of it at once, before a host changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import AUTHORITIES, Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inputs import app_authorities, uses_tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import mistakes_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.cross_host import left_behind
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import GROUPS, Host, Inventory
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import generated, not_generated

USES_CA = {"all", "rabbitmq", "result_store", "supervisor", "flower"}
"""The parts of a run that make the CA, or install it."""


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node, once for all hosts of the play."""

    def act(self) -> dict[str, Any]:
        """Fail with every mistake, numbered, or return the secrets to generate for each host; change nothing."""
        inventory = self.inventory()
        mistakes = mistakes_of(inventory, self._templar.is_template, self._task.args.get("only") or [])
        if not mistakes:
            if not self._task.args.get("only") and (behind := left_behind(inventory)):
                hosts = ", ".join(behind[:10]) + (f" and {len(behind) - 10} more" if behind[10:] else "")
                Display().warning(f"--limit leaves out {hosts}: they stay on the release that they have.")
            return {"changed": False, **self.generated(inventory)}
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = [f"{number}. {text}" for number, text in enumerate(mistakes, 1)]
        return {
            "failed": True,
            "msg": "\n".join([f"The inventory has {count}; nothing was changed on any host.", *lines]),
        }

    def generated(self, inventory: Inventory) -> dict[str, Any]:
        """By host of the run, and by host outside it, what this run is going to generate."""
        own = {} if self._task.args.get("only") else self.generated_on(inventory.hosts)
        return {"generated": own, "elsewhere": self.generated_on(inventory.others) if own else {}}

    def generated_on(self, hosts: list[Host]) -> dict[str, Any]:
        """By host, what this run is going to generate of its secrets, in the words of the action credentials_check."""
        found, reader = {}, Reader(self.task_vars, self._templar)
        makes_ca = self._task.args.get("authority") and USES_CA & {*self.task_vars.get("ansible_run_tags", USES_CA)}
        for host in hosts:
            if host.true("celery_app_rotate_credentials"):
                continue
            files, authority = generated(host), authority_of(host, reader) if makes_ca else {}
            if files or authority:
                found[host.name] = {
                    "app": host.text("celery_app_name"),
                    "directory": host.text("celery_app_secrets_dir"),
                    "files": files,
                    "broker": "rabbitmq" in host.groups,
                    "authority": authority,
                }
        return found

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


def authority_of(host: Host, reader: Reader) -> dict[str, Any]:
    """Return where the CA of the kit's is missing, and where the host would have one installed; empty without need."""
    if {"celery_app_tls_directory", "celery_app_tls_ca"} & set(host.given):
        return {}
    directory, ca = (Path(host.need(f"celery_app_tls_{what}")).expanduser() for what in ("directory", "ca"))
    key = directory / "ca.key"
    if ca.exists() or key.exists():
        return {}
    services = {"broker": "rabbitmq", "result_store": "result_store"}
    installed = [AUTHORITIES[service] for service, group in services.items() if uses_tls(group, host, reader)]
    if host.runs_app and app_authorities(host, reader):
        installed.append(Layout(host.text("celery_app_name")).tls_ca)
    return {"missing": [str(ca), str(key)], "installed": list(map(str, installed))} if installed else {}
