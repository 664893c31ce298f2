#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Make a host's Redis and Sentinel a member of a store of several hosts, once: from then on Sentinel decides."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_sentinel
short_description: Make a host's Redis and Sentinel a member of a store of several hosts
description:
  - Where Sentinel watches the store already, it has Redis and Sentinel log in with O(password), if that is another one
    than so far, and does nothing else. Sentinel keeps its state in its configuration, and who the primary is changes
    without the kit.
  - On a host that is new, asks the Sentinels of the other hosts which one is the primary. Where none knows, it is the
    first of O(nodes).
  - Writes Sentinel's configuration and, on a host that is not the primary, makes its Redis a replica of it. Fails where
    that Redis holds keys, as they would be replaced.
options:
  nodes:
    description: The addresses of all hosts; the first is the primary at first.
    type: list
    elements: str
    required: true
  address: {description: This host's own among them., type: str, required: true}
  bind: {description: Address that Sentinel listens on., type: str, default: 0.0.0.0}
  port: {description: The port Redis listens on., type: int, default: 6379}
  sentinel_port: {description: The port Sentinel listens on., type: int, default: 26379}
  password:
    description: >-
      The password of the user by which they log in to each other. When it changes, all hosts have to take it already.
    type: str
    required: true
  acl_file: {description: Sentinel's ACL file., type: path, required: true}
  tls_directory:
    description: The directory with cert.pem, key.pem and ca.pem; empty without TLS.
    type: str
    default: ""
  conf: {description: Sentinel's configuration., type: path, default: /etc/redis/sentinel.conf}
attributes:
  check_mode: {support: full, description: Says whether the host would become a member.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- redis_sentinel:
    nodes: [10.0.0.5, 10.0.0.6, 10.0.0.7]
    address: 10.0.0.6
    password: "{{ vault_result_store_replication_password }}"
    acl_file: /etc/redis/celery-ops-sentinel.acl
"""
RETURN = r"""
primary:
  description: The primary at which a new member begins; empty for one that was a member before.
  type: str
  returned: success
"""

import re
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of, write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import REDIS_DATA, SENTINEL_CONF, SENTINEL_PRIMARY
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run
from ansible_collections.celery_ops.kit.plugins.module_utils.services.redis import (
    ADMIN,
    REPLICATION,
    Address,
    admin_password,
    ask,
    held,
    is_sentinel_configured,
    watched_by_others,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

DOWN_AFTER = 5000
"""Milliseconds without an answer after which the primary counts as down."""
FAILOVER = 30000
"""Milliseconds between two attempts to replace it."""


def configuration(want: dict[str, Any], primary: str) -> str:
    """Return Sentinel's configuration at first; it writes its own state into it afterwards."""
    tls, port = want["tls_directory"], want["sentinel_port"]
    listener = [f"port {port}"]
    if tls:
        listener = [
            "port 0",
            f"tls-port {port}",
            f"tls-cert-file {tls}/cert.pem",
            f"tls-key-file {tls}/key.pem",
            f"tls-ca-cert-file {tls}/ca.pem",
            f"tls-auth-clients {'yes' if want['verify_clients'] else 'no'}",
            "tls-replication yes",
        ]
    name, quorum = SENTINEL_PRIMARY, len(want["nodes"]) // 2 + 1
    lines = [
        "# Written once by celery-ops; Sentinel keeps its state in it.",
        f"bind {want['bind']}",
        *listener,
        "daemonize no",
        "pidfile /run/sentinel/redis-sentinel.pid",
        "logfile /var/log/redis/redis-sentinel.log",
        f"dir {REDIS_DATA}",
        f"aclfile {want['acl_file']}",
        f"sentinel announce-ip {want['address']}",
        f"sentinel announce-port {port}",
        f"sentinel sentinel-user {REPLICATION}",
        f"sentinel sentinel-pass {want['password']}",
        f"sentinel monitor {name} {primary} {want['port']} {quorum}",
        f"sentinel auth-user {name} {REPLICATION}",
        f"sentinel auth-pass {name} {want['password']}",
        f"sentinel down-after-milliseconds {name} {DOWN_AFTER}",
        f"sentinel failover-timeout {name} {FAILOVER}",
        f"sentinel parallel-syncs {name} 1",
        "sentinel deny-scripts-reconfig yes",
    ]
    return "".join(f"{line}\n" for line in lines)


def primary_of(want: dict[str, Any], ca: str) -> str:
    """Return the address of the primary, as another Sentinel knows it, or else the first one's."""
    for node in want["nodes"]:
        if node == want["address"]:
            continue
        try:
            said = ask(
                Address(node, want["sentinel_port"], ca),
                f"SENTINEL GET-MASTER-ADDR-BY-NAME {SENTINEL_PRIMARY}",
                user=REPLICATION,
                password=want["password"],
            )
        except OperatorError:
            continue
        if len(said) == 2 and re.fullmatch(r"[\d.]+", said[0]):
            return said[0]
    return want["nodes"][0]


def passwords_of(conf: str) -> set[str]:
    """Return the passwords with which a Sentinel logs in to the others and to Redis, as its configuration has them."""
    logins = rf"^sentinel (?:sentinel-pass|auth-pass {SENTINEL_PRIMARY}) (.+)$"
    return {each.strip().strip('"') for each in re.findall(logins, conf, re.MULTILINE | re.IGNORECASE)}


def verified(conf: str, *, verify: bool) -> str:
    """Return the text of a Sentinel's configuration with what it asks clients to show; the same without TLS."""
    return re.sub(r"^tls-auth-clients .*$", f"tls-auth-clients {'yes' if verify else 'no'}", conf, flags=re.MULTILINE)


def has_not_read(sentinel: Address, password: str) -> bool:
    """Whether the Sentinel that runs knows nothing of the store, of which its configuration tells.

    As a run leaves it that ended before the restart. One that does not run reads it when it starts.
    """
    question = f"SENTINEL GET-MASTER-ADDR-BY-NAME {SENTINEL_PRIMARY}"
    try:
        return len(ask(sentinel, question, user=REPLICATION, password=password)) != 2
    except OperatorError as why:
        return "Connection refused" not in str(why)


def switch(redis: Address, sentinel: Address, password: str) -> None:
    """Switch a running member to another password; connections that are open stay or return at once.

    Sentinel writes it into its configuration, last: until then the next run does this again. Raises OperatorError.
    """
    by = {"user": ADMIN, "password": admin_password()}
    for unit, address, *commands in (
        ("redis-server", redis, f"CONFIG SET masterauth {password}"),
        (
            "redis-sentinel",
            sentinel,
            f"SENTINEL SET {SENTINEL_PRIMARY} auth-pass {password}",
            f"SENTINEL CONFIG SET sentinel-pass {password}",
        ),
    ):
        try:
            ask(address, *commands, **by)
        except OperatorError as why:
            raise OperatorError(
                f"{unit} did not take the new result_store_replication_password ({why}). The old one is still valid. "
                f"Type on this host: systemctl restart {unit}; then run this again"
            ) from None


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "str", "required": True},
            "address": {"type": "str", "required": True},
            "bind": {"type": "str", "default": "0.0.0.0"},
            "port": {"type": "int", "default": 6379},
            "sentinel_port": {"type": "int", "default": 26379},
            "password": {"type": "str", "required": True, "no_log": True},
            "acl_file": {"type": "path", "required": True},
            "tls_directory": {"type": "str", "default": ""},
            "verify_clients": {"type": "bool", "default": False},
            "conf": {"type": "path", "default": str(SENTINEL_CONF)},
        },
        supports_check_mode=True,
    )
    want = module.params
    conf = Path(want["conf"])
    is_member = is_sentinel_configured(conf)
    text = text_of(conf) if is_member else ""
    switches, verifies = passwords_of(text) != {want["password"]}, verified(text, verify=want["verify_clients"]) != text
    changes = not is_member or switches or verifies
    ca = f"{want['tls_directory']}/ca.pem" if want["tls_directory"] else ""
    host = own_address(want["bind"])
    here, sentinel = Address(host, want["port"], ca), Address(host, want["sentinel_port"], ca)
    if module.check_mode or not changes:
        module.exit_json(changed=changes or has_not_read(sentinel, want["password"]), primary="")
    with reported(module):
        if is_member:
            if switches:
                switch(here, sentinel, want["password"])
            if verifies:
                run("systemctl", "stop", "redis-sentinel")  # it would write what it has read over it
                text = verified(text_of(conf), verify=want["verify_clients"])
                write_atomically(conf, text, 0o640, "redis", "redis")
            module.exit_json(changed=True, primary="")
        if others := watched_by_others(conf):
            raise OperatorError(
                f"The Sentinel of this host watches {', '.join(others)} for somebody else, and {conf} would be "
                "replaced. It stays as it is. Use another host in group result_store"
            )
        primary = primary_of(want, ca)
        if primary != want["address"]:
            if count := held(here):
                raise OperatorError(
                    f"The Redis of {want['address']} holds {count} keys, which those of the primary {primary} would "
                    "replace. Its results are not in the store; empty it (redis-cli FLUSHALL), or write its host first "
                    "in the group result_store, as long as no other one has been set up"
                )
            ask(
                here,
                f"REPLICAOF {primary} {want['port']}",
                "CONFIG REWRITE",
                user=REPLICATION,
                password=want["password"],
            )
        write_atomically(conf, configuration(want, primary), 0o640, "redis", "redis")
    module.exit_json(changed=True, primary=primary)


if __name__ == "__main__":
    main()
