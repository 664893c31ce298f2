#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Move the messages of an application from this host's RabbitMQ to another broker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_move
short_description: Move the messages of an application from this host's RabbitMQ to another broker
description:
  - Runs on the host of the old broker, once producers and workers use the other one. A shovel for each queue moves what
    is left, and what still comes, and goes on until the move is confirmed. No message is acknowledged here before the
    other broker has confirmed it.
  - Can be interrupted and repeated at any time.
options:
  vhost:
    description: The application's vhost, which its user is called like.
    type: str
    required: true
  state:
    description:
      - V(noted) is for the broker that the vhost comes to. It records O(source), so that the status tells of the move.
      - V(checked) fails where there is nothing to move here.
      - V(moving) defines the shovels, and waits.
      - V(confirmed) removes shovels, vhost and user, where nothing is left and nobody is connected.
      - V(forgotten) removes what V(noted) recorded.
    type: str
    choices: [noted, checked, moving, confirmed, forgotten]
    required: true
  urls:
    description: URLs of the other broker, with user and password, as this host reaches it; one of them is used.
    type: list
    elements: str
    default: []
  ca:
    description: The CA of the other broker, in PEM, which the URLs name a file of; empty for none.
    type: str
    default: ""
  leave:
    description: A regular expression of names of queues that hold nothing to move.
    type: str
    default: 'amq\..*'
  wait:
    description: Seconds to wait until nothing is left to move.
    type: int
    default: 60
  source:
    description: The inventory's name of the host that the vhost comes from, which is also the one to type.
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: Nothing is defined or removed.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_move:
    vhost: shop
    urls: ["amqp://shop:{{ password }}@broker2:5672/shop"]
    state: moving
"""
RETURN = r"""
left: {description: "Messages that are still to be moved, by queue.", type: dict, returned: state=moving}
outcome:
  description: What is left and what to type next.
  type: str
  returned: state=moving or confirmed
timed: {description: "Messages that wait for their time here, by queue.", type: dict, returned: state=moving}
"""

from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_move
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def answer(want: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do it, and return the module's result. Raises OperatorError."""
    vhost, state = want["vhost"], want["state"]
    if state in ("noted", "forgotten"):
        wanted = want["source"] if state == "noted" else None
        if check_mode:
            return {"changed": rabbitmq_move.noted(vhost).get("from") != wanted}
        return {"changed": rabbitmq_move.note(vhost, **{"from": wanted})}
    if state == "checked":
        rabbitmq_move.definitions_with(vhost)
        return {"changed": False}
    if state == "confirmed":
        changed = rabbitmq_move.finish(vhost, want["leave"], check_mode=check_mode)
        return {"changed": changed, "outcome": rabbitmq_move.confirmed(vhost, want["source"])}
    changed = rabbitmq_move.trust(vhost, want["ca"], check_mode=check_mode)
    changed = rabbitmq_move.begin(vhost, want["leave"], want["urls"], check_mode=check_mode) or changed
    still = rabbitmq_move.wait(vhost, want["leave"], 0 if check_mode else want["wait"])
    said = rabbitmq_move.outcome(vhost, want["source"], still)
    return {"changed": changed, "left": still.to_move, "timed": still.timed, "outcome": said}


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "vhost": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["noted", "checked", "moving", "confirmed", "forgotten"],
                "required": True,
            },
            "urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "ca": {"type": "str", "default": ""},
            "leave": {"type": "str", "default": r"amq\..*"},
            "wait": {"type": "int", "default": 60},
            "source": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    with reported(module):
        module.exit_json(**answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
