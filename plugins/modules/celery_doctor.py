#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: check a host for what loses tasks, lets others in, or will stop the application."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_doctor
short_description: Check a host of a Celery application, far beyond its status
description:
  - Checks RabbitMQ, Redis, Supervisor, Celery's settings, permissions, listeners, disks, clock, updates and versions;
    each check is a function in C(plugins/module_utils/doctor), has an id, and says what it saw and what fixes it.
  - The action plugin of the same name adds the checks of the control node. Changes nothing, and shows no secret.
options:
  app:
    description: The application's name.
    type: str
    required: true
  groups:
    description: Those of the kit's groups that the host is in.
    type: list
    elements: str
    required: true
  wanted:
    description: What the inventory says - C(time_limit), C(queues), C(scheduler), C(tls), C(nodes), C(groups).
    type: dict
    default: {}
  accepted:
    description: Checks whose warning or failure does not count.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
author:
  - celery-ops (@celery-ops)
"""

EXAMPLES = r"""
- name: Check the host
  celery_ops.kit.celery_doctor:
    app: petct
    groups: [worker]
"""

RETURN = r"""
findings:
  description: "Of each check: C(id), C(level), C(evidence), C(fix)."
  type: list
  elements: dict
  returned: always
now: {description: The host's clock., type: float, returned: always}
"""

import time
from dataclasses import asdict

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import (  # noqa: F401 - they register their checks
    broker,
    celery_settings,
    examine,
    files,
    machine,
    programs,
    store,
    versions,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import read, wanted_of
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "groups": {"type": "list", "elements": "str", "required": True},
            "wanted": {"type": "dict", "default": {}},
            "accepted": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    now, options = time.time(), module.params
    facts = read(options["app"], options["groups"], wanted_of(options["wanted"]))
    found = examine(facts, options["accepted"])
    module.exit_json(changed=False, findings=[asdict(one) for one in found], now=now)


if __name__ == "__main__":
    main()
