#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Give applications their Redis users, in the ACL file and in the Redis that runs, or remove them with their keys."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_users
short_description: Give applications their Redis users, or remove them with their keys
description:
  - Writes the ACL file and, where Redis runs with it, changes the users in the running Redis too, one by one.
    (C(ACL LOAD) would close the connections of every application, up to Redis 7.2.)
  - A user may read and write one database, and run no command that reaches another one.
  - The file also switches the user C(default) off, and has a user of the kit's own that may do nothing but this.
options:
  applications:
    description: The applications.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The application's name, which is the user's.
        type: str
        required: true
      password:
        description: The user's password. Required with O(state=present).
        type: str
      database:
        description: The number of the application's database. Required with O(state=present).
        type: int
  keep_former:
    description: Whether the passwords that the users have in the ACL file stay valid beside the new ones.
    type: bool
    default: false
  acl_file:
    description: The ACL file.
    type: path
    required: true
  host:
    description: Where Redis listens.
    type: str
    default: 127.0.0.1
  port:
    description: The port Redis listens on.
    type: int
    default: 6379
  ca:
    description: The CA that verifies a Redis with TLS; empty without.
    type: str
    default: ""
  replication_password:
    description: >-
      The password of the user by which replicas and Sentinels log in to each other; empty for a Redis that is alone.
    type: str
    default: ""
  sentinel:
    description: >-
      Whether it is a Sentinel that listens there. Its users may ask for the primary, and nothing else.
    type: bool
    default: false
  reload_certificate:
    description: Whether a Redis with TLS has to read its certificate again, also where it shows the one of the file.
    type: bool
    default: false
  state:
    description: V(absent) deletes the users, and the keys in their databases unless another user has the same one.
    choices: [present, absent]
    default: present
    type: str
attributes:
  check_mode: {support: full, description: "Says whether the file would change; Redis is not asked."}
  diff_mode: {support: full, description: "Shows the users' rules, with the hashes of their passwords hidden."}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- redis_users:
    applications:
      - name: shop
        password: "{{ vault_shop_store_password }}"
        database: 1
    acl_file: /etc/redis/celery-ops.acl
"""
RETURN = r"""
restart:
  description: Whether Redis has to be restarted to read the file, as after the first change.
  returned: success
  type: bool
"""

import hashlib
import re
import secrets
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.paths import Access, mend_access
from ansible_collections.celery_ops.kit.plugins.module_utils.services.redis import (
    ADMIN,
    ADMIN_KEY,
    REPLICATION,
    Address,
    acl_users,
    admin_password,
    ask,
    database_of,
    users_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

REACH = (
    # Other databases, and what all databases share: patterns and lists of channels, functions, scripts, key names
    # that are broadcast to clients with a cache. (A worker counts who waits for a large result.)
    "-select -move -copy -psubscribe -pubsub +pubsub|numsub -function -script|flush -script|kill -script|debug "
    "-client|tracking"
)
OWN = "+info +keys +flushdb"
"""Commands that Redis calls dangerous, and applications need: they look at, or empty, their own database."""
ACCESS = Access(0o640, "redis", "redis")
HASH = re.compile(r"#[0-9a-f]{64}")
"""A password's, which no output shows."""
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
TLS_TIMEOUT = 5.0  # seconds
REFUSED = re.compile("NOAUTH|WRONGPASS|NOPERM")
"""What a Redis says that has not read the kit's own user yet."""
DEFAULT = "off ~* &* +@all"
"""Nobody can log in as this user. Redis itself does what is in the append-only file as this user when it starts, and
without the rights, leaves out every transaction in it."""
REPLICATION_RULES = (
    # What replicas and Sentinels do with a primary (Redis' documentation: ACL rules for Sentinel and replicas).
    "resetchannels &__sentinel__:hello -@all +auth +hello +ping +psync +replconf +multi +exec +slaveof +replicaof "
    "+subscribe +publish +info +role +config|rewrite +client|setname +client|kill +script|kill"
)
BETWEEN_SENTINELS = (
    "&__sentinel__:hello -@all +auth +hello +ping +info +publish +subscribe +client|setname "
    "+sentinel|is-master-down-by-addr +sentinel|get-master-addr-by-name"
)
ASKS_SENTINEL = (
    # redis-py asks for `masters`, other clients for the address alone. No password is in the answers.
    "resetchannels -@all +auth +hello +ping +role +info +client|setname +sentinel|masters "
    "+sentinel|master +sentinel|get-master-addr-by-name +sentinel|replicas +sentinel|slaves +sentinel|sentinels"
)
ADMIN_OF_SENTINEL = (
    "resetchannels -@all +auth +hello +ping +info +acl|setuser +acl|deluser +sentinel|set +sentinel|config"
)
"""Sentinel knows no other commands of the administrator's, and refuses a file that names some."""
ADMIN_RULES = "resetchannels -@all +auth +hello +ping +info +select +flushdb +acl|setuser +acl|deluser +config|set"


def rules_of(application: dict[str, Any], before: str = "", sentinel: bool = False) -> str:
    """Return the rules of an application's user; the passwords in the rules `before` stay valid."""
    passwords = hashes(application["password"], before)
    if sentinel:
        return f"on {passwords} {ASKS_SENTINEL}"
    return (
        f"on {passwords} ~* resetchannels &* +@all -@admin -@dangerous {REACH} {OWN} +select|{application['database']}"
    )


def with_users(text: str, users: dict[str, str | None]) -> str:
    """Return the ACL file with these users' lines replaced, added, or removed (None). Others keep theirs."""
    lines = [line for line in text.splitlines() if line.split(" ", 2)[1:2] and line.split(" ", 2)[1] not in users]
    return "".join(
        f"{line}\n" for line in [*lines, *(f"user {name} {rules}" for name, rules in users.items() if rules)]
    )


def key_of_kit() -> str:
    """Return the password of the kit's own user, made if need be."""
    if not admin_password():
        ADMIN_KEY.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(ADMIN_KEY, secrets.token_urlsafe(32) + "\n", 0o600)
    return admin_password()


def own_users(password: str, replication_password: str, sentinel: bool, before: str = "") -> dict[str, str]:
    """Return the rules of the users that are no application's; replicas' passwords in the rules `before` stay valid."""
    rules = ADMIN_OF_SENTINEL if sentinel else ADMIN_RULES
    users = {"default": "off" if sentinel else DEFAULT, ADMIN: f"on {hashes(password)} {rules}"}
    if replication_password:
        rules = BETWEEN_SENTINELS if sentinel else REPLICATION_RULES
        users[REPLICATION] = f"on {hashes(replication_password, before)} {rules}"
    return users


def hashes(password: str, before: str = "") -> str:
    """Return a password as it stands in rules, followed by those in the rules `before`."""
    fresh = f"#{hashlib.sha256(password.encode()).hexdigest()}"
    return " ".join([fresh, *(each for each in HASH.findall(before) if each != fresh)])


def removal(name: str, known: dict[str, str], gone: Collection[str]) -> list[str]:
    """Return the commands that delete a user, and its keys where no user that stays has the same database."""
    number = database_of(known[name])
    shared = any(database_of(rules) == number for other, rules in known.items() if other not in gone)
    return [f"ACL DELUSER {name}", *([] if shared else [f"SELECT {number}", "FLUSHDB"])]


def shows_another(address: Address, file: Path) -> bool:
    """Whether Redis shows another certificate than the file has, as after a run that ended before it was read."""
    try:
        shown = ssl.get_server_certificate((address.host, address.port), timeout=TLS_TIMEOUT)
        own = CERTIFICATE.search(file.read_text())
    except OSError:  # one that does not run, or has no TLS yet, reads it when it starts
        return False
    return own is not None and ssl.PEM_cert_to_DER_cert(own[0]) != ssl.PEM_cert_to_DER_cert(shown)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "applications": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "database": {"type": "int"},
                },
            },
            "keep_former": {"type": "bool", "default": False},
            "acl_file": {"type": "path", "required": True},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 6379},
            "ca": {"type": "str", "default": ""},
            "replication_password": {"type": "str", "default": "", "no_log": True},
            "sentinel": {"type": "bool", "default": False},
            "reload_certificate": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    with reported(module):
        work(module)


def work(module: AnsibleModule) -> NoReturn:
    """Write what differs, and tell Redis. Raises OSError."""
    want = module.params
    path, address, present = (
        Path(want["acl_file"]),
        Address(want["host"], want["port"], want["ca"]),
        want["state"] == "present",
    )
    for each in want["applications"] if present else ():
        if not each["password"] or each["database"] is None:
            module.fail_json(msg=f"applications: {each['name']} needs a password and the number of a database.")
    text, known = path.read_text() if path.exists() else "", acl_users(str(path))
    written = users_of(text)
    before = written if want["keep_former"] else {}
    applications = [each for each in want["applications"] if present or each["name"] in known]
    if not present and not applications:
        module.exit_json(changed=False, restart=False)
    password = admin_password() if module.check_mode else key_of_kit()
    names = [each["name"] for each in applications]
    users: dict[str, str | None] = {
        **own_users(password, want["replication_password"], want["sentinel"], before.get(REPLICATION, "")),
        **{
            each["name"]: rules_of(each, before.get(each["name"], ""), want["sentinel"]) if present else None
            for each in applications
        },
    }
    fresh = with_users(text, users)
    certificate = Path(want["ca"]).with_name("cert.pem") if want["ca"] and present and not want["sentinel"] else None
    is_unread = certificate is not None and shows_another(address, certificate)
    wants_reload = certificate and (is_unread or want["reload_certificate"])
    reload = [f"CONFIG SET tls-cert-file {certificate}"] if wants_reload else []
    if sorted(fresh.splitlines()) == sorted(text.splitlines()):
        if reload and not module.check_mode:
            try:
                ask(address, *reload, user=ADMIN, password=password)
            except OperatorError:
                module.exit_json(changed=True, restart=True)
        kept = Outcome(module.check_mode)
        mend_access(path, ACCESS, kept)
        module.exit_json(changed=is_unread or bool(kept.diff), restart=False, diff=kept.diff)
    diff = {"before": HASH.sub("#(hidden)", text), "after": HASH.sub("#(hidden)", fresh)}
    if module.check_mode:
        module.exit_json(changed=True, restart=False, diff=diff)
    differing = [name for name, rules in users.items() if rules and written.get(name) != rules]
    commands = [f"ACL SETUSER {name} reset {users[name]}" for name in differing]
    for name in () if present else names:
        commands += removal(name, known, names)[: 1 if want["sentinel"] else None]
    restart = False
    try:
        ask(address, *commands, *reload, "PING", user=ADMIN, password=password)
    except OperatorError as why:
        restart = True
        if not present and REFUSED.search(str(why)):
            # Their keys can be deleted after the restart.
            fresh = with_users(fresh, {name: known[name] for name in names})
        elif not present:
            module.warn(f"Redis does not answer: results of {', '.join(names)} in it expire by themselves ({why})")
    write_atomically(path, fresh, ACCESS.mode, ACCESS.owner, ACCESS.group)
    module.exit_json(changed=True, restart=restart, diff=diff)


if __name__ == "__main__":
    main()
