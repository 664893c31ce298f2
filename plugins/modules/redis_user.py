#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Give an application its Redis user, in the ACL file and in the Redis that runs, or take it away with its keys."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.files import write_atomically
from ansible.module_utils.shared_services import (
    REDIS_ADMIN,
    REDIS_KEY,
    Unanswered,
    acl_users,
    admin_password,
    database_of,
    redis,
)
from ansible.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: redis_user
short_description: Give an application its Redis user, or take it away with its keys
description:
  - Writes the ACL file and, where Redis runs with it, changes the user in the running Redis too. Other applications
    on the same Redis keep their connections.
  - The user may read and write one database, and run no command that reaches another one.
  - The file also switches the user C(default) off, and has a user of the kit's own that may do nothing but this.
options:
  name:
    description: The application's name, which is the user's.
    type: str
    required: true
  password_hash:
    description: SHA-256 of the user's password, in hexadecimal.
    type: str
  database:
    description: The number of the application's database.
    type: int
  acl_file:
    description: The ACL file.
    type: path
    required: true
  state_dir:
    description: Where the password of the kit's own user is kept, readable by root only.
    type: path
    default: /var/lib/celery-ops
  host:
    description: Where Redis listens.
    type: str
    default: 127.0.0.1
  port:
    description: The port Redis listens on.
    type: int
    default: 6379
  state:
    description: V(absent) deletes the user, and the keys in its database unless another user has the same one.
    choices: [present, absent]
    default: present
    type: str
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- redis_user:
    name: shop
    password_hash: "{{ shop_password | hash('sha256') }}"
    database: 1
    acl_file: /etc/redis/celery-ops.acl
  no_log: true
"""
RETURN = r"""
restart:
  description: Whether Redis has to be restarted to read the file, as after the first change.
  returned: success
  type: bool
"""

REACH = (
    # Other databases, and what all databases share: patterns and lists of channels, functions, scripts, key names
    # that are broadcast to clients with a cache.
    "-select -move -copy -psubscribe -pubsub -function -script|flush -script|kill -script|debug -client|tracking"
)
OWN = "+info +keys +flushdb"
"""Commands that Redis calls dangerous, and applications need: they look at, or empty, their own database."""
REFUSED = re.compile("NOAUTH|WRONGPASS|NOPERM")
"""What a Redis says that has not read the kit's own user yet."""
ADMIN = "resetchannels -@all +auth +hello +ping +info +select +flushdb +acl|setuser +acl|deluser"


def rules_of(password_hash: str, database: int) -> str:
    """Return the rules of an application's user."""
    return f"on #{password_hash} ~* resetchannels &* +@all -@admin -@dangerous {REACH} {OWN} +select|{database}"


def with_users(text: str, users: dict[str, str | None]) -> str:
    """Return the ACL file with these users' lines replaced, added, or removed (None). Others keep theirs."""
    lines = [line for line in text.splitlines() if line.split(" ", 2)[1:2] and line.split(" ", 2)[1] not in users]
    return "".join(
        f"{line}\n" for line in [*lines, *(f"user {name} {rules}" for name, rules in users.items() if rules)]
    )


def key_of_kit(state_dir: str) -> str:
    """Return the password of the kit's own user, made if need be."""
    if not admin_password(state_dir):
        Path(state_dir).mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(Path(state_dir, REDIS_KEY), secrets.token_urlsafe(32) + "\n", 0o600)
    return admin_password(state_dir)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "password_hash": {"type": "str", "no_log": True},
            "database": {"type": "int"},
            "acl_file": {"type": "path", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/celery-ops"},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 6379},
            "state": {"choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("password_hash", "database"))],
        supports_check_mode=True,
    )
    want = module.params
    name, path, address = want["name"], Path(want["acl_file"]), (want["host"], want["port"])
    text, known = path.read_text() if path.exists() else "", acl_users(str(path))
    if want["state"] == "absent" and name not in known:
        module.exit_json(changed=False, restart=False)
    password = admin_password(want["state_dir"]) if module.check_mode else key_of_kit(want["state_dir"])
    present = want["state"] == "present"
    rules = rules_of(want["password_hash"], want["database"]) if present else None
    users = {
        "default": "off",
        REDIS_ADMIN: f"on #{hashlib.sha256(password.encode()).hexdigest()} {ADMIN}",
        name: rules,
    }
    fresh = with_users(text, users)
    if fresh == text or sorted(fresh.splitlines()) == sorted(text.splitlines()):
        module.exit_json(changed=False, restart=False)
    if module.check_mode:
        module.exit_json(changed=True, restart=False)
    commands = [f"ACL SETUSER {name} reset {rules}"] if rules else [f"ACL DELUSER {name}"]
    if not present:
        number = database_of(known[name])
        if not any(database_of(each) == number for other, each in known.items() if other != name):
            commands += [f"SELECT {number}", "FLUSHDB"]
    restart = False
    try:
        redis(address, *commands, user=REDIS_ADMIN, password=password)
    except Unanswered as why:
        restart = True
        if not present and REFUSED.search(str(why)):
            fresh = with_users(fresh, {name: known[name]})  # its keys can be deleted after the restart
        elif not present:
            module.warn(f"Redis does not answer: results of {name} that are in it expire by themselves ({why})")
    write_atomically(path, fresh, 0o640, "redis", "redis")
    module.exit_json(changed=True, restart=restart)


if __name__ == "__main__":
    main()
