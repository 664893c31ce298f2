#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: show the status of an application on this host, and what is wrong with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_status
short_description: Show the status of a Celery application on this host
description:
  - Shows the release, the programs with their state in Supervisor and what the watchdog reports of them, orphans,
    queues, the deploy lock and the last deploys; and what is wrong, with what to do about it.
  - Changes nothing. Shows no secret - neither environments nor messages are read.
options:
  app:
    description: The application's name.
    type: str
    required: true
  host:
    description: The host's name in the inventory, for commands to type.
    type: str
    default: ""
  programs:
    description: Whether this host runs programs of the application.
    type: bool
    default: true
  broker:
    description: Whether this host is the broker, so that queues can be looked at.
    type: bool
    default: false
  nodes:
    description: The nodes that the broker's cluster is to have; empty for a broker that is alone.
    type: list
    elements: str
    default: []
  groups:
    description: The hosts of the kit's groups in the inventory, for O(broker), whether or not the run is about them.
    type: dict
    default: {}
  ask_broker:
    description:
      - A command that asks a foreign broker, to which the names of queues are appended. Empty where the broker is one
        of the kit's.
    type: list
    elements: str
    default: []
  rotation:
    description: Whether the control node says that a rotation of passwords was not completed.
    type: bool
    default: false
  supervisord_conf:
    description: The configuration of supervisord, which says where it listens.
    type: path
    default: /etc/supervisor/supervisord.conf
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
author:
  - celery-ops (@celery-ops)
"""

EXAMPLES = r"""
- name: Look at the application
  celery_ops.kit.celery_status:
    app: petct
  register: status

- name: Show it
  ansible.builtin.debug:
    msg: "{{ status.text }}"
"""

RETURN = r"""
text: {description: All of it for people - a table and the problems., type: str, returned: always}
lines: {description: The same line by line., type: list, elements: str, returned: always}
problems: {description: "What is wrong, with what to do; a line each.", type: list, elements: str, returned: always}
release: {description: The current release; empty where there is none., type: str, returned: always}
programs:
  description: By name - C(state), C(pid), C(uptime) in seconds, C(release), C(health), C(why), and C(tasks) of workers.
  type: dict
  returned: always
orphans: {description: "The watchdog's orphans: pid, what, seconds.", type: list, elements: dict, returned: always}
queues: {description: By name - C(messages) and C(consumers)., type: dict, returned: always}
unlisted:
  description: "Workers that consume, of hosts not in the group C(worker): C(program), C(host), C(connection)."
  type: list
  elements: dict
  returned: always
cluster: {description: By node of the broker's cluster - running or down or missing., type: dict, returned: always}
lock: {description: Who holds the deploy lock; empty when it is free., type: dict, returned: always}
work:
  description: "The process that works on this host for a run: C(what), C(who), C(phase), C(since), C(pid)."
  type: dict
  returned: always
deploys: {description: "The last entries of the audit log, newest first.", type: list, elements: dict, returned: always}
unsafe:
  description: "The application's settings that can lose tasks: C(setting), C(value), and the line to C(write)."
  type: list
  elements: dict
  returned: always
certificates: {description: "The end of each certificate as Unix time, by its file.", type: dict, returned: always}
draft:
  description: "The deploy or rollback that is under way, or was interrupted: C(id), C(action), C(who), C(phase)."
  type: dict
  returned: always
"""

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SUPERVISORD_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import (
    ask_for_queues,
    look,
    look_at_cluster,
    look_at_programs,
    look_at_queues,
    look_at_versions,
    look_at_workers,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import text
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

REPORTED = (
    "release", "programs", "orphans", "queues", "cluster", "lock", "work", "deploys", "unsafe", "draft", "certificates",
)  # fmt: skip
"""What is returned of a status."""

ARGUMENTS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "host": {"type": "str", "default": ""},
    "programs": {"type": "bool", "default": True},
    "broker": {"type": "bool", "default": False},
    "nodes": {"type": "list", "elements": "str", "default": []},
    "groups": {"type": "dict", "default": {}},
    "ask_broker": {"type": "list", "elements": "str", "default": []},
    "rotation": {"type": "bool", "default": False},
    "supervisord_conf": {"type": "path", "default": str(SUPERVISORD_CONF)},
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    seen = look(options["app"], socket.gethostname())
    seen.rotation = options["rotation"]
    if options["programs"]:
        look_at_programs(seen, Path(options["supervisord_conf"]))
    seen.name = options["host"]
    if options["broker"]:
        look_at_versions(seen)
        look_at_queues(seen)
        look_at_workers(seen, options["groups"])
        if options["nodes"]:
            look_at_cluster(seen, options["nodes"])
    elif options["ask_broker"]:
        ask_for_queues(seen, options["ask_broker"])
    found = problems(seen, has_programs=options["programs"])
    lines = text(seen, found, has_programs=options["programs"], has_queues=options["broker"])
    known = {name: getattr(seen, name) for name in REPORTED}
    known["unlisted"] = [asdict(one) for one in seen.unlisted]
    module.exit_json(changed=False, lines=lines, text="\n".join(lines), problems=found, **known)


if __name__ == "__main__":
    main()
