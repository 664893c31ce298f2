#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Tell what a host holds of a RabbitMQ cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_node_info
short_description: Tell what a host holds of a RabbitMQ cluster
description:
  - Changes nothing, and needs no RabbitMQ on the host.
options:
  node:
    description: Erlang's name of the node that the host is to be.
    type: str
    required: true
  address:
    description: The address that the node is to have in the cluster.
    type: str
    required: true
  cookie:
    description: The cluster's Erlang cookie, to compare with the host's.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_node_info:
    node: rabbit@broker1
    address: 10.0.0.11
    cookie: "{{ vault_erlang_cookie }}"
  register: info
"""
RETURN = r"""
info:
  description: >-
    The C(node), the C(members) of its cluster as its disk tells (none for a blank host), other nodes whose C(data) the
    host holds, whether the C(cookie) is the V(same), another or V(none), whether the C(user) of the package is there,
    whether the C(address) is the host's own, the C(release) of Debian, and whether it has C(systemd); whether its
    broker C(runs), and whether that speaks C(tls) with other nodes.
  returned: success
  type: dict
"""

import pwd
import socket

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.system import Distribution
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SYSTEMD
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import (
    cookie_is,
    distribution,
    members_of,
    running_broker,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import nodes
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def has_address(address: str) -> bool:
    """Whether the host can listen at an address."""
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def has_user(name: str = "rabbitmq") -> bool:
    """Whether the user that the package brings is there."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "cookie": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    node, runs = module.params["node"], Distribution.read()
    module.exit_json(
        changed=False,
        info={
            "node": node,
            "members": members_of(node),
            "data": [name for name in nodes() if name != node],
            "cookie": cookie_is(module.params["cookie"]),
            "user": has_user(),
            "address": has_address(module.params["address"]),
            "release": f"{runs.id} {runs.version}",
            "systemd": SYSTEMD.is_dir(),
            **distribution(running_broker()),
        },
    )


if __name__ == "__main__":
    main()
