"""The value of a role's input for this host, from the inventory's celery_ variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: input
author:
  - celery-ops (@celery-ops)
short_description: The value of a role's input for this host
version_added: 0.2.0
description:
  - The roles C(rabbitmq), C(result_store), C(supervisor) and C(preflight) know nothing of Celery. The kit's playbooks
    give them their inputs by this lookup, which makes them from the inventory's C(celery_) variables.
  - A value that the inventory sets itself is returned as it is.
options:
  _terms:
    description: The input's name, such as V(rabbitmq_applications).
    required: true
"""
EXAMPLES = r"""
- name: Broker
  hosts: rabbitmq
  vars:
    rabbitmq_applications: "{{ lookup('celery_ops.kit.input', 'rabbitmq_applications') }}"
  roles: [celery_ops.kit.rabbitmq]
"""
RETURN = r"""
_raw:
  description: The value.
  type: list
"""

from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.lookup import LookupBase
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import own_groups
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inputs import INPUTS
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import declared
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader


class LookupModule(LookupBase):
    """Evaluates the host's variables among the roles' defaults."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the value of each input. Raises AnsibleError for a name that is none."""
        known = variables or {}
        unknown = [name for name in terms if name not in INPUTS]
        if unknown:
            raise AnsibleError(f"celery_ops.kit.input: there is no input {unknown[0]}; available: {', '.join(INPUTS)}.")
        if "inventory_hostname" not in known:
            known = self.of_the_first_worker()
        if not known:
            return [declared()[term]["default"] for term in terms]
        reader = Reader(known, self._templar)
        host = reader.host(known["inventory_hostname"])
        return [INPUTS[term](host, reader) for term in terms]

    def of_the_first_worker(self) -> dict[str, Any]:
        """Return variables for a play's serial, which is the same for all workers: Ansible gives none of a host."""
        inventory = InventoryManager(loader=self._loader, sources=context.CLIARGS["inventory"])
        groups = inventory.get_groups_dict()
        workers = own_groups(groups).get("worker")
        if not workers:
            return {}
        manager = VariableManager(loader=self._loader, inventory=inventory)
        hostvars = HostVars(inventory, manager, self._loader)
        return {"hostvars": hostvars, "groups": groups, "inventory_hostname": workers[0]}
