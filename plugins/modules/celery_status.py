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
  store:
    description: Whether this host is the result store.
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
  flower:
    description: Whether the inventory has Flower on this host.
    type: bool
    default: false
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
text: {description: "All of it for people - OK or the problems, then tables and more.", type: str, returned: always}
lines: {description: "The same without problems and queues, line by line.", type: list, elements: str, returned: always}
problems: {description: "What is wrong, with what to do; a line each.", type: list, elements: str, returned: always}
notes: {description: What is to be known before something is done., type: list, elements: str, returned: always}
app: {description: The application's name., type: str, returned: always}
hostname: {description: What the host calls itself., type: str, returned: always}
release: {description: The current release; empty where there is none., type: str, returned: always}
since: {description: "When it became that, as Unix time.", type: float, returned: always}
programs:
  description: >-
    By name - C(state), C(pid), C(uptime) in seconds, C(release), C(program), C(health), C(why), C(restarts),
    C(memory) in bytes, and of workers C(active), C(slots), C(reserved) and C(queues).
  type: dict
  returned: always
watched: {description: "Whether the watchdog responds, where one belongs.", type: bool, returned: always}
orphans: {description: "The watchdog's orphans: pid, what, seconds.", type: list, elements: dict, returned: always}
queues:
  description: By name - C(messages), C(ready), C(unacked), C(consumers) and C(state).
  type: dict
  returned: always
unseen: {description: What can't be seen of the broker., type: str, returned: always}
unlisted:
  description: "Programs connected from hosts not in their group: C(program), C(group), C(host), C(connection)."
  type: list
  elements: dict
  returned: always
broker: {description: The version of RabbitMQ's package; empty where there is none., type: str, returned: always}
nodes:
  description: "The broker's running nodes: C(name), and memory and disk in bytes."
  type: list
  elements: dict
  returned: always
alarms: {description: "The broker's alarms: C(node) and C(alarm).", type: list, elements: dict, returned: always}
cluster: {description: By node of the broker's cluster - running or down or missing., type: dict, returned: always}
store:
  description: >-
    The result store: C(reachable), C(why), C(version), C(role), C(memory), C(memory_limit), C(evicted), C(keys),
    C(faults).
  type: dict
  returned: always
flower:
  description: "Flower, where it belongs: C(state), C(pid), C(uptime), C(memory), C(answers), C(url); empty elsewhere."
  type: dict
  returned: always
tick: {description: "When a worker here last ran the scheduler's tick, as Unix time.", type: float, returned: always}
next_due: {description: "When the scheduler here is due next, as Unix time.", type: float, returned: always}
hour: {description: "The last hour of the queues in points of C(every) s.", type: dict, returned: always}
now: {description: "By queue the age of the C(oldest) task and the C(rate).", type: dict, returned: always}
scheduled: {description: "When each entry of the schedule last ran, as Unix time.", type: dict, returned: always}
lock: {description: Who holds the deploy lock; empty when it is free., type: dict, returned: always}
work:
  description: "The process that works on this host for a run: C(what), C(who), C(phase), C(since), C(pid)."
  type: dict
  returned: always
paused:
  description: "What pause.yml has paused here: C(what), C(name), C(since), C(until), C(who), C(why), C(by)."
  type: list
  elements: dict
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SUPERVISORD_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import (
    Status,
    ask_for_queues,
    look,
    look_at_broker,
    look_at_cluster,
    look_at_flower,
    look_at_programs,
    look_at_store,
    look_at_versions,
    node_of_several,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import notes, problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import pause, queue_table, text, verdict
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

REPORTED = (
    "app", "release", "since", "programs", "watched", "orphans", "queues", "nodes", "alarms", "cluster", "store",
    "scheduled", "tick", "next_due", "hour", "now", "lock", "work", "paused", "deploys", "unsafe", "draft",
    "certificates", "unseen", "flower",
)  # fmt: skip
"""What is returned of a status."""

ARGUMENTS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "host": {"type": "str", "default": ""},
    "programs": {"type": "bool", "default": True},
    "broker": {"type": "bool", "default": False},
    "store": {"type": "bool", "default": False},
    "nodes": {"type": "list", "elements": "str", "default": []},
    "groups": {"type": "dict", "default": {}},
    "ask_broker": {"type": "list", "elements": "str", "default": []},
    "flower": {"type": "bool", "default": False},
    "rotation": {"type": "bool", "default": False},
    "supervisord_conf": {"type": "path", "default": str(SUPERVISORD_CONF)},
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    seen = look(options["app"], socket.gethostname())
    seen.name, seen.rotation = options["host"], options["rotation"]
    # They wait for other processes, above all for rabbitmqctl.
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(one, seen) for one in looks(options)]:
            done.result()
    if options["ask_broker"] and not options["broker"]:
        ask_for_queues(seen, options["ask_broker"])  # those that the programs of this host consume from
    found = problems(seen, has_programs=options["programs"])
    lines = text(seen, has_programs=options["programs"], has_queues=options["broker"])
    module.exit_json(changed=False, **returned(seen, found, lines))


def returned(seen: Status, found: list[str], lines: list[str]) -> dict[str, Any]:
    """Return what the module returns of a status, its problems and its text."""
    rows = [{"name": name, **queue, **seen.now.get(name, {})} for name, queue in sorted(seen.queues.items())]
    return {
        **{name: getattr(seen, name) for name in REPORTED},
        "unlisted": [asdict(one) for one in seen.unlisted],
        "broker": seen.broker.installed,
        "hostname": seen.host,
        "problems": found,
        "notes": list(notes(seen)),
        "lines": lines,
        "text": "\n".join([*verdict(found), *map(pause, seen.paused), *queue_table(rows), *lines]),
    }


def looks(options: dict[str, Any]) -> Iterator[Callable[[Status], None]]:
    """Yield what is looked at, at the same time, on a host of these groups."""
    if options["programs"]:
        yield lambda seen: look_at_programs(seen, Path(options["supervisord_conf"]))
    if options["flower"]:
        yield lambda seen: look_at_flower(seen, Path(options["supervisord_conf"]))
    if options["store"]:
        yield look_at_store
    if options["broker"]:
        yield look_at_versions
        yield lambda seen: look_at_broker(seen, options["groups"])
        if nodes := options["nodes"] or node_of_several():
            yield lambda seen: look_at_cluster(seen, nodes)


if __name__ == "__main__":
    main()
