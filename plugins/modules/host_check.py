#!/usr/bin/python
"""Check that a host meets the requirements of what the inventory wants of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Check that a host meets the requirements
description:
  - Changes nothing, and reports every problem at once.
options:
  supported:
    description: Tested versions by distribution (C(ID) and C(VERSION_ID) of os-release).
    type: dict
    required: true
  untested:
    description: Versions that have the same packages and init and are not tested, likewise.
    type: dict
    default: {}
  allow_untested:
    description: Whether the host may have one of those.
    type: bool
    default: false
  disk_free:
    description: MiB that have to be free where releases, data and logs go.
    type: int
    default: 1024
  change_shared:
    description: Whether those may change although other applications of the kit use the service.
    type: bool
    default: false
  now:
    description: Unix time of the control node, set by the action plugin; a host whose clock is far off is warned of.
    type: float
  requirements:
    description: What the inventory asks of the host.
    type: dict
    required: true
    suboptions:
      app:
        description: The application's name.
        type: str
        required: true
      command:
        description: The name of the application's command in /usr/local/bin; empty for none.
        type: str
        default: ""
      groups:
        description: Those of the inventory's groups that the host is in.
        type: list
        elements: str
        required: true
      programs:
        description: The worker programs.
        type: list
        elements: dict
        default: []
      overlap:
        description: Whether two generations of workers run side by side during a deploy.
        type: bool
        default: true
      python:
        description: The Python that makes the virtualenvs.
        type: path
        default: /usr/bin/python3
      listeners:
        description: Addresses (C(host:port)) that the host's services are to listen on, by variable.
        type: dict
        default: {}
      binds:
        description: Addresses that the host's services are to listen on, by variable.
        type: dict
        default: {}
      consumer_timeout:
        description: Seconds that RabbitMQ is to leave a task unacknowledged.
        type: int
        default: 0
      node_name:
        description: RabbitMQ's node name.
        type: str
        default: ""
      distribution_bind:
        description: Address of Erlang's own ports.
        type: str
        default: 127.0.0.1
      cluster_nodes:
        description: The nodes of the broker's cluster, whose addresses the kit tells Erlang; none for a broker alone.
        type: list
        elements: str
        default: []
      broker_shared:
        description: Whether the broker is somebody else's, and only gets a vhost and a user.
        type: bool
        default: false
      time_limit:
        description: Seconds a task may take.
        type: int
        default: 300
      store_instance:
        description: The Redis instance of the kit's own, if it is to have one beside Debian's.
        type: str
        default: ""
      store_address:
        description: The host's own address, if it is one of several that keep the results together.
        type: str
        default: ""
      store_primary:
        description: The address of the first one of these.
        type: list
        elements: str
        default: []
      store_database:
        description: The application's database in the result store.
        type: int
        default: 1
      store_database_is_set:
        description: Whether the inventory sets that, or it is the default.
        type: bool
        default: false
      services_in_force:
        description:
          - By which hosts broker and result store may be known, so that an environment in force that names others is
            refused; see C(module_utils/host_requirements/services_in_force.py). Empty for no such check.
        type: dict
        default: {}
      verify_clients:
        description: Whether broker and result store are to refuse clients without a certificate.
        type: bool
        default: false
      store_memory:
        description: MiB that the result store may use.
        type: int
        default: 0
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- host_check:
    supported: {debian: ["12", "13"]}
    requirements:
      app: shop
      groups: [worker]
      programs: [{name: default, queues: [shop], concurrency: 4}]
"""
RETURN = r"""
consumer_timeout:
  description: The same, or longer where another application of the kit on the broker may need that.
  type: int
  returned: always
ansible_facts:
  description: >-
    Those of Ansible's own facts that the roles need, C(service_mgr) and C(memtotal_mb), in C(supervisor_users)
    what the module M(celery_ops.kit.service_users) answers of Supervisor, and in C(flowers) the files of programs that
    are a Flower.
  type: dict
  returned: always
"""

from collections.abc import Iterator
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import (
    application,
    broker,
    ports,
    services_in_force,
    shared,
    store,
    supervisor,
    system,
    tls_clients,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.supervisor import Supervisord
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.system import Distribution
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import APP_GROUPS, CONF_D, PYTHON, SUPERVISORD_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.services import redis
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import from_kit
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import versions
from ansible_collections.celery_ops.kit.plugins.module_utils.services.supervisor import foreign_programs
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

REQUIREMENTS = {
    "app": {"type": "str", "required": True},
    "command": {"type": "str", "default": ""},
    "groups": {"type": "list", "elements": "str", "required": True},
    "programs": {"type": "list", "elements": "dict", "default": []},
    "overlap": {"type": "bool", "default": True},
    "python": {"type": "path", "default": PYTHON},
    "listeners": {"type": "dict", "default": {}},
    "binds": {"type": "dict", "default": {}},
    "consumer_timeout": {"type": "int", "default": 0},
    "node_name": {"type": "str", "default": ""},
    "distribution_bind": {"type": "str", "default": "127.0.0.1"},
    "cluster_nodes": {"type": "list", "elements": "str", "default": []},
    "broker_shared": {"type": "bool", "default": False},
    "time_limit": {"type": "int", "default": 300},
    "store_instance": {"type": "str", "default": ""},
    "store_address": {"type": "str", "default": ""},
    "store_primary": {"type": "list", "elements": "str", "default": []},
    "store_database": {"type": "int", "default": 1},
    "store_database_is_set": {"type": "bool", "default": False},
    "services_in_force": {"type": "dict", "default": {}},
    "store_memory": {"type": "int", "default": 0},
    "verify_clients": {"type": "bool", "default": False},
}


def problems(want: dict[str, Any], runs: Distribution, running: list[Supervisord]) -> Iterator[str]:
    """Yield everything that keeps the host from its part in the system."""
    app, groups = want["app"], want["groups"]
    yield from system.distribution(runs, want["supported"], want["untested"], want["allow_untested"])
    yield from system.root()
    yield from system.disk(want["disk_free"])
    yield from ports.problems(want["listeners"], app)
    if not want["change_shared"]:
        yield from shared.binds(app, want["binds"])
    if APP_GROUPS & set(groups):
        yield from application.name(app)
        yield from application.command(want["command"], app)
        yield from application.operators_command(app)
        yield from application.operators_group(app)
        yield from application.python(want["python"])
        yield from services_in_force.problems(app, want["services_in_force"])
        yield from tls_clients.problems(app, verify=want["verify_clients"])
        yield from system.mounted(app)
        yield from supervisor.problems(running, SUPERVISORD_CONF)
    programs = want["programs"] if "worker" in groups else []
    files = system.most_open_files(each.pid for each in running if each.is_debians)
    yield from system.open_files(programs, files)
    yield from system.memory(programs, want["overlap"], want["store_memory"])
    if "rabbitmq" in groups:
        # A broker that can't start can't be asked who uses it.
        in_use = list(broker.data(versions(want["node_name"]))) or list(
            broker.in_use(app, want["broker_shared"], want["time_limit"])
        )
        yield from in_use
        if not in_use and not want["broker_shared"]:
            yield from broker.identity(want["node_name"], want["cluster_nodes"], want["distribution_bind"])
    if "result_store" in groups:
        if want["store_address"]:
            yield from store.member(want["store_primary"][0], want["store_address"])
        else:
            yield from store.in_use(want["store_instance"])
        yield from store.database(app, want["store_database"], want["store_database_is_set"], redis.acl_users())


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "supported": {"type": "dict", "required": True},
            "untested": {"type": "dict", "default": {}},
            "allow_untested": {"type": "bool", "default": False},
            "disk_free": {"type": "int", "default": 1024},
            "change_shared": {"type": "bool", "default": False},
            "now": {"type": "float"},
            "requirements": {"type": "dict", "required": True, "options": REQUIREMENTS},
        },
        supports_check_mode=True,
    )
    want = module.params | module.params["requirements"]
    if want["now"] is not None:
        for text in system.clock(want["now"]):  # first: it may be behind what else is wrong
            module.warn(text)
    runs = Distribution.read()
    running = list(supervisor.supervisords()) if APP_GROUPS & set(want["groups"]) else []
    found = list(problems(want, runs, running))
    if found:
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        module.fail_json(msg="\n".join(["This host does not meet the requirements; nothing was changed.", *lines]))
    if not runs.is_one_of(want["supported"]):
        module.warn(f"{runs.name} is not tested by this project (preflight_allow_untested).")
    for other in (each for each in running if not each.is_debians):
        module.warn(
            f"Beside Debian's Supervisor another one runs: {other}. The kit leaves it alone; to ask Debian's, type: "
            f"supervisorctl -c {SUPERVISORD_CONF} status"
        )
    module.exit_json(
        changed=False,
        consumer_timeout=shared.consumer_timeout(want["app"], want["consumer_timeout"]),
        # What the roles would have to ask for, each by itself.
        ansible_facts={
            "service_mgr": system.service_manager(),
            "memtotal_mb": system.memory_mib(),
            "flowers": sorted(map(str, CONF_D.glob("flower-*.conf"))),
            "supervisor_users": {
                "foreign_programs": foreign_programs(),
                "from_kit": ["supervisor"] if from_kit("supervisor") else [],
            },
        },
    )


if __name__ == "__main__":
    main()
