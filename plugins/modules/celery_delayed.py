#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: the tasks that wait for their time in the delay queues of the broker on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_delayed
short_description: Look at the tasks that wait in the delay queues of the broker on this host
description:
  - Returns, for the first 50 messages of each of Celery's delay queues, for which queue it is, its task and its time.
    Nothing is delivered, moved or counted. Arguments are not read.
options:
  app: {description: The application's name., type: str, required: true}
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_delayed:
    app: shop
"""
RETURN = r"""
tasks: {description: "Of each V(queue), V(id), V(name) and V(eta).", returned: success, type: list, elements: dict}
more: {description: Whether a delay queue has more than were looked at., returned: success, type: bool}
"""

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.delayed import delayed
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec={"app": {"type": "str", "required": True}}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **delayed(module.params["app"]))
    except (OperatorError, OSError, ValueError) as why:
        module.fail_json(msg=f"the broker on this host does not report it: {why}")


if __name__ == "__main__":
    main()
