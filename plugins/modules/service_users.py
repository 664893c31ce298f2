#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Find who uses a host's RabbitMQ, Redis and Supervisor besides an application."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import shared_services
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: service_users
short_description: Find who uses a host's RabbitMQ, Redis and Supervisor besides an application
description:
  - Changes nothing. It finds other applications of the kit, other vhosts, queues and users of RabbitMQ, other users,
    keys and instances of Redis, and other programs under Supervisor.
options:
  app:
    description: The application's name.
    type: str
    required: true
  services:
    description: The services to look at. One that is not installed has no users.
    type: list
    elements: str
    choices: [rabbitmq, result_store, supervisor]
    required: true
  state_dir:
    description: The kit's state directory, with its record of the packages it installed.
    type: path
    default: /var/lib/celery-ops
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- service_users:
    app: shop
    services: [rabbitmq, result_store, supervisor]
  register: users
"""
RETURN = r"""
others:
  description: "Everything that is not the application's, such as C(RabbitMQ: user crm)."
  returned: success
  type: list
  elements: str
foreign_programs:
  description: Files with programs under Supervisor that no application of the kit owns.
  returned: success
  type: list
  elements: str
from_kit:
  description: The services that the kit installed, whichever were to be looked at.
  returned: success
  type: list
  elements: str
"""


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "services": {
                "type": "list",
                "elements": "str",
                "choices": list(shared_services.PACKAGES),
                "required": True,
            },
            "state_dir": {"type": "path", "default": "/var/lib/celery-ops"},
        },
        supports_check_mode=True,
    )
    app, services, state_dir = (module.params[name] for name in ("app", "services", "state_dir"))
    found = shared_services.other_applications(app)
    try:
        for service in services:
            found += shared_services.others(service, app, state_dir)
    except shared_services.Unanswered as why:
        module.fail_json(msg=f"{why}, so that it can be asked who uses it. Nothing was changed.")
    module.exit_json(
        changed=False,
        others=found,
        foreign_programs=shared_services.foreign_programs(),
        from_kit=[service for service in shared_services.PACKAGES if shared_services.from_kit(service, state_dir)],
    )


if __name__ == "__main__":
    main()
