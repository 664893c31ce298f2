#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Wait until a RabbitMQ cluster has exactly the nodes that it should have, and keep it in order."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_cluster
short_description: Wait until a RabbitMQ cluster has exactly the nodes that it should have, and keep it in order
description:
  - Runs on one node of the cluster. Fails, having changed nothing, if members and O(nodes) still differ after
    O(timeout) seconds, or if one of them does not run. It never removes or resets a node.
  - Then enables all stable feature flags, sets net_ticktime on every node and reads it back, and gives quorum queues
    that
    have fewer than three members further ones.
options:
  nodes:
    description: Erlang's names of the cluster's nodes.
    type: list
    elements: str
    required: true
  ticktime:
    description: Seconds without an answer after which a node takes another for gone.
    type: int
    default: 8
  rebalance:
    description: Whether the leaders of the queues are to be spread over the nodes.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for the nodes.
    type: int
    default: 120
attributes:
  check_mode: {support: full, description: Says what it would do; a broker that is not there as yet counts as a change.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_cluster:
    nodes: [rabbit@broker1, rabbit@broker2, rabbit@broker3]
  run_once: true
"""
RETURN = r"""
did:
  description: What was done, a line each.
  returned: success
  type: list
  elements: str
"""

from typing import NoReturn

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_cluster as cluster
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

GROWTH_TIMEOUT = 600
"""Seconds for the messages of the queues to reach a new member."""


def advice(faults: list[str], timeout: float) -> str:
    """Return what is wrong with the cluster, and what to do about it."""
    lines = [
        f"The cluster is not as the inventory says, after {timeout:.0f} s: {'; '.join(faults)}. Nothing was declared."
    ]
    if any("does not run" in fault for fault in faults):
        lines.append(
            "Start a node that does not run, on its host: systemctl start rabbitmq-server; look at /var/log/rabbitmq."
        )
    if any("not in the inventory" in fault for fault in faults):
        lines.append(
            "A member that the inventory does not have: add its host to group rabbitmq; or, if it has left for ever, "
            "type on "
            "any other member, while all others run: rabbitmqctl forget_cluster_node <node>"
        )
    if any(fault.endswith("is not a member") for fault in faults):
        lines.append(
            "A node that did not join (look at /var/log/rabbitmq on its host) and is new, without any data, joins if "
            "you "
            "type there: rabbitmqctl stop_app; rabbitmqctl reset; rabbitmqctl start_app. This deletes what that node "
            "has."
        )
    return " ".join(lines)


def wrong_ticktimes(details: cluster.Details, wanted: int) -> list[str]:
    """Return the nodes that have another net_ticktime."""
    return sorted(node for node, seconds in details.ticktimes.items() if seconds != wanted)


def set_ticktime(seconds: int) -> None:
    """Set net_ticktime on all nodes."""
    cluster.ctl("eval", f"[rpc:call(N, net_kernel, set_net_ticktime, [{seconds}]) || N <- [node() | nodes()]].")


def run(module: AnsibleModule) -> NoReturn:
    """Do it. Raises OperatorError."""
    nodes, ticktime, timeout = (module.params[name] for name in ("nodes", "ticktime", "timeout"))
    did = []
    try:
        state = (
            cluster.state()
            if module.check_mode
            else cluster.await_nodes(nodes, timeout, lambda faults: advice(faults, timeout))
        )
    except OperatorError:
        if not module.check_mode:
            raise
        module.exit_json(changed=True, did=["form the cluster"])
    did += [f"join {node}" for node in nodes if node not in state.members]
    details = cluster.details()
    if state.disabled_flags:
        did.append(f"enable the feature flags {', '.join(state.disabled_flags)}")
        if not module.check_mode:
            cluster.ctl("enable_feature_flag", "all")
    if wrong := wrong_ticktimes(details, ticktime):
        did.append(f"set net_ticktime to {ticktime} on {', '.join(wrong)}")
        if not module.check_mode:
            set_ticktime(ticktime)
            if still := wrong_ticktimes(cluster.details(), ticktime):
                raise OperatorError(f"net_ticktime is not {ticktime} on {', '.join(still)}, although it was set.")
    for node, queues in cluster.additions(details.short_queues, nodes).items():
        did.append(f"give {len(queues)} quorum queues a member on {node}")
        if not module.check_mode:
            cluster.grow(node, queues, GROWTH_TIMEOUT)
    if module.params["rebalance"]:
        did.append("spread the leaders of the queues")
        if not module.check_mode:
            words = ("all", "--vhost-pattern", ".*", "--queue-pattern", ".*")
            cluster.ctl("rebalance", *words, program="rabbitmq-queues", timeout=GROWTH_TIMEOUT)
    module.exit_json(changed=bool(did), did=did, diff={"before": "", "after": "".join(f"{line}\n" for line in did)})


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "str", "required": True},
            "ticktime": {"type": "int", "default": 8},
            "rebalance": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except OperatorError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
