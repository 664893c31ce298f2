#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Refuse hosts that can't form one RabbitMQ cluster. The action plugin of the same name does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_cluster_check
short_description: Refuse hosts that can't form one RabbitMQ cluster
description:
  - Looks at what M(celery_ops.kit.rabbitmq_node_info) has found on all hosts of the play, on the control node.
  - Fails for data of another cluster, for two nodes that each hold data of their own, for a member whose data is gone,
    and
    for hosts that can't work together. Nothing is changed, and no data is ever deleted.
options:
  nodes:
    description: The nodes of the cluster, each with its C(name) and C(address).
    type: list
    elements: dict
    required: true
  found:
    description: By host of the play, what was found there.
    type: dict
    required: true
  tls:
    description: Whether the nodes are to speak TLS with each other.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: The action changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_cluster_check:
    nodes:
      - {name: rabbit@broker1, address: 10.0.0.11}
      - {name: rabbit@broker2, address: 10.0.0.12}
      - {name: rabbit@broker3, address: 10.0.0.13}
    found: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, ['info', 'info']))) }}"
  run_once: true
"""
RETURN = ""
