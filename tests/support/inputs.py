"""What the playbooks give to the roles that know nothing of Celery, as Ansible finds it in an inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.celery_ops.kit.plugins.lookup.input import LookupModule

ALONE = {group: ["one"] for group in ("rabbitmq", "result_store", "worker", "scheduler", "web")}
FLEET = {"rabbitmq": ["hub"], "result_store": ["hub"], "worker": ["one", "two"], "scheduler": ["hub"], "web": ["hub"]}


def input_of(
    directory: Path,
    name: str,
    groups: dict[str, list[str]] = ALONE,
    host: str = "",
    hosts: dict[str, Any] | None = None,
    **variables: Any,
) -> Any:
    """Return what the lookup says of an input on a host (the first one unless told) of an inventory in `directory`."""
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    members = dict.fromkeys(host for names in groups.values() for host in names)
    said = {"celery_app_name": "shop", "celery_app_secrets_dir": str(directory / "secrets"), **variables}
    inventory = {
        "hosts": {each: (hosts or {}).get(each, {}) for each in members},
        "children": {group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()},
        "vars": said,
    }
    file = directory / "hosts.json"
    file.write_text(json.dumps({"all": inventory}))
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(file)])
    hostvars = HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)
    known = {
        "hostvars": hostvars,
        "groups": manager.get_groups_dict(),
        "inventory_hostname": host or next(iter(members)),
    }
    [found] = LookupModule(loader=loader, templar=Templar(loader, known)).run([name], known)
    return found
