"""The pattern of the hosts that are in some of the kit's groups."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
author:
  - celery-ops (@celery-ops)
short_description: The pattern of the hosts in some of the kit's groups
version_added: 0.2.0
description:
  - The kit's groups are C(rabbitmq), C(result_store), C(worker), C(scheduler) and C(web). In an inventory that has
    one of them with C(celery_) before its name, such as C(celery_web), all five are called so, and groups of the
    plain names are somebody else's.
  - A variable of the command line whose name is nearly one of the kit's, or whose value has another type, is refused,
    as is a tag that nothing in the playbook has, and what has hosts not wait for each other.
options:
  _terms:
    description: The groups, by their plain names.
    required: true
  otherwise:
    description: The pattern where none of the groups has a host.
    type: str
"""
EXAMPLES = r"""
- name: Programs
  hosts: "{{ lookup('celery_ops.kit.hosts', 'worker', 'scheduler', 'web') }}"
"""
RETURN = r"""
_raw:
  description: The pattern, such as V(celery_worker:celery_scheduler:celery_web).
  type: list
"""

from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__
from ansible.utils.vars import load_extra_vars

try:
    from ansible.template import trust_as_template  # noqa: F401
except ImportError:
    raise AnsibleError(
        f"This is ansible-core {__version__}, and celery-ops needs 2.19 or newer; nothing was changed on any host. "
        "Use the checkout's .venv/bin/ansible-playbook (`make up` makes it), or type: pip install 'ansible-core>=2.19'"
    ) from None

# Ansible evaluates a play's hosts in the process of which it makes a copy for each task: what is loaded here, no task
# compiles and reads again.
from ansible_collections.celery_ops.kit.plugins.lookup import derived, input  # noqa: F401
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import prefix_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.command_line import refuse_mistakes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import role_defaults
from ansible_collections.celery_ops.kit.plugins.plugin_utils.packed_modules import keep_packed_modules


class LookupModule(LookupBase):
    """Looks at the names of the inventory's groups: plays have no other variables yet but those of the command line.

    Every verb begins with it, so that here a mistake in those is refused for all of them.
    """

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return one pattern for all groups."""
        refuse_mistakes(load_extra_vars(self._loader), context.CLIARGS, C.DEFAULT_STRATEGY)
        role_defaults()
        keep_packed_modules()
        groups = (variables or {})["groups"]
        names = [f"{prefix_of(groups)}{group}" for group in terms]
        is_empty = not any(groups.get(name) for name in names)
        return [kwargs["otherwise"] if is_empty and "otherwise" in kwargs else ":".join(names)]
