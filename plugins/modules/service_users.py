#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Find who uses a host's RabbitMQ, Redis and Supervisor besides an application."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_users
short_description: Find who uses a host's RabbitMQ, Redis and Supervisor besides an application
description:
  - Changes nothing. It finds other applications of the kit, other vhosts, queues and users of RabbitMQ, other users,
    keys and instances of Redis, and other programs under Supervisor.
options:
  app:
    description: The application's name; empty for none.
    type: str
    default: ""
  services:
    description: The services to look at. One that is not installed has no users.
    type: list
    elements: str
    choices: [rabbitmq, result_store, supervisor]
    required: true
  to_remove:
    description:
      - Whether they are to be removed. Then those that the kit installed on the host for others are looked at as well,
        as all of them go together.
      - With O(app), also refuses while that is being deployed.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: The module changes nothing.}
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
logins:
  description: Those of them that log in to RabbitMQ or Redis.
  returned: success
  type: list
  elements: str
foreign_programs:
  description: Files with programs under Supervisor that no application of the kit owns.
  returned: success
  type: list
  elements: str
namesakes:
  description: What has the application's name, such as C(/srv/shop), and is not the kit's.
  returned: success
  type: list
  elements: str
from_kit:
  description: The services that the kit installed, whichever were to be looked at.
  returned: success
  type: list
  elements: str
"""

import time
from pathlib import Path

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import deploy_lease, host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import application
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import KEEPER_FREES, LEASE_TIMEOUT, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.services import debian, rabbitmq, redis, supervisor
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

POLL = 0.2


def others(service: str, app: str) -> tuple[list[str], list[str]]:
    """Return everything of others that needs the service, one thing a text, and which of it logs in there.

    Raises OperatorError.
    """
    if not debian.is_installed(service):
        return [], []
    if service == "rabbitmq":
        definitions = rabbitmq.exported_definitions()
        return rabbitmq.other_users(app, definitions), rabbitmq.logins(app, definitions)
    if service == "result_store":
        return redis.other_users(app), redis.logins(app)
    return supervisor.other_programs(app), []


def await_rest(directory: Path, seconds: float) -> str:
    """Return what is under way on this host, once that has not ended within `seconds`; "" for nothing."""
    deadline = time.monotonic() + seconds
    while (run := under_way(directory)) and time.monotonic() < deadline:
        time.sleep(POLL)
    return run


def under_way(directory: Path) -> str:
    """Return who deploys, or the work that a run has left behind on this host; "" for nobody."""
    lease, worker = host_work.lease_of(directory), host_work.worker_of(directory)
    if lease and deploy_lease.age(lease) < LEASE_TIMEOUT:
        return f"{lease.get('what')} of {lease.get('who')}, since {lease.get('at')}"
    # One that only forgets what has drained works for a moment.
    return host_work.words(worker) if worker is not None and worker.get("job") != "drain" else ""


def to_look_at(services: list[str], to_remove: bool) -> list[str]:
    """Return these services; if any is to be removed, with those that the kit installed, as all of them go together."""
    also = [each for each in debian.PACKAGES if debian.from_kit(each)] if services and to_remove else []
    return [each for each in debian.PACKAGES if each in {*services, *also}]


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "default": ""},
            "services": {
                "type": "list",
                "elements": "str",
                "choices": list(debian.PACKAGES),
                "required": True,
            },
            "to_remove": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    app, services = module.params["app"], module.params["services"]
    if module.params["to_remove"] and app and (run := await_rest(Layout(app).work, KEEPER_FREES)):
        module.fail_json(
            msg=f"{app} is being deployed on this host ({run}). Nothing was removed. Wait for it (ansible-playbook "
            "playbooks/status.yml shows it), or, if that run is gone: ansible-playbook playbooks/unlock.yml"
        )
    found, logins = supervisor.other_applications(app), []
    if services and module.params["to_remove"]:
        found += debian.other_rules()
    try:
        for service in to_look_at(services, module.params["to_remove"]):
            of_service, users = others(service, app)
            found += of_service
            logins += users
    except OperatorError as why:
        module.fail_json(msg=f"{why}, so that it can be asked who uses it. Nothing was changed.")
    module.exit_json(
        changed=False,
        others=found,
        logins=logins,
        foreign_programs=supervisor.foreign_programs(),
        namesakes=application.namesakes(app) if app else [],
        from_kit=[service for service in debian.PACKAGES if debian.from_kit(service)],
    )


if __name__ == "__main__":
    main()
