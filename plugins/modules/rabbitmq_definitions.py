#!/usr/bin/python
"""Bring RabbitMQ to a set of definitions in one call: vhosts, users, permissions, policies, exchanges, queues."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rabbitmq_definitions
short_description: Bring RabbitMQ to a set of definitions in one call
description:
  - Compares the definitions with what the broker exports, and imports what differs in one go. What the broker has
    beyond them stays. A user whose password hash differs gets the new one, so rotating a password works.
options:
  definitions:
    description: As in RabbitMQ's own definitions file; only the kinds named here are looked at.
    type: dict
    required: true
  password_hashes:
    description: The users' password hashes by name; apart from the definitions, so that those can be shown.
    type: dict
    default: {}
  absent_users:
    description: Users that must not exist, such as V(guest).
    type: list
    elements: str
    default: []
  state:
    description: V(absent) removes the users and the vhosts of C(definitions), with all that is in them.
    choices: [present, absent]
    default: present
  timeout:
    description: Seconds to wait for the broker to have started.
    type: int
    default: 60
author: The celery-ops authors
"""
EXAMPLES = r"""
- rabbitmq_definitions:
    definitions:
      vhosts: [{name: shop}]
      users: [{name: shop, hashing_algorithm: rabbit_password_hashing_sha256, tags: []}]
      permissions: [{user: shop, vhost: shop, configure: ".*", write: ".*", read: ".*"}]
    password_hashes: {shop: "{{ hash }}"}
    absent_users: [guest]
"""
RETURN = r"""
differing: {description: What was not as it should be, by kind and name., type: list, returned: always}
"""

# What tells two objects of a kind apart.
IDENTITY = {
    "vhosts": ("name",),
    "users": ("name",),
    "permissions": ("vhost", "user"),
    "policies": ("vhost", "name"),
    "exchanges": ("vhost", "name"),
    "queues": ("vhost", "name"),
    "bindings": ("vhost", "source", "destination_type", "destination", "routing_key"),
}
CTL = "rabbitmqctl"


def identity(kind: str, item: dict[str, Any]) -> tuple[Any, ...]:
    """What tells this object from others of its kind."""
    return tuple(item[key] for key in IDENTITY[kind])


def differing(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the wanted objects that are missing, or of which a wanted property differs."""
    names = []
    for kind, items in wanted.items():
        there = {identity(kind, item): item for item in found.get(kind, [])}
        for item in items:
            known = there.get(identity(kind, item))
            if known is None or any(known.get(key) != value for key, value in item.items()):
                names.append(f"{kind}: {' '.join(filter(None, identity(kind, item)))}")
    return names


class Broker:
    """rabbitmqctl on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def ctl(self, *arguments: str, hint: str = "") -> str:
        """Run rabbitmqctl; fail the module with its words and a hint."""
        rc, out, err = self.module.run_command([CTL, "--quiet", *arguments])
        if rc:
            words = (err or out).strip()
            self.module.fail_json(msg=f"rabbitmqctl {arguments[0]} ended with {rc}: {words} {hint}".strip())
        return out

    def wait(self) -> None:
        """Wait until the broker has started."""
        seconds = str(self.module.params["timeout"])
        hint = f"RabbitMQ did not start within {seconds} s. Look at /var/log/rabbitmq, or type: rabbitmqctl status"
        self.ctl("await_startup", "--timeout", seconds, hint=hint)

    def exported(self) -> dict[str, Any]:
        """All definitions as the broker has them."""
        return json.loads(self.ctl("export_definitions", "-", "--format", "json"))

    def load(self, definitions: dict[str, Any]) -> None:
        """Import definitions from a file that only the broker's user can read."""
        with tempfile.NamedTemporaryFile("w", dir="/var/lib/rabbitmq", suffix=".json") as file:
            shutil.chown(file.name, "rabbitmq", "rabbitmq")
            json.dump(definitions, file)
            file.flush()
            self.ctl("import_definitions", file.name, hint="Is something in the vhost already, with other properties?")


def present(module: AnsibleModule, broker: Broker) -> None:
    """Import what differs, then remove users that must not exist."""
    wanted, hashes = dict(module.params["definitions"]), module.params["password_hashes"]
    wanted["users"] = [
        {**user, **({"password_hash": hashes[user["name"]]} if user["name"] in hashes else {})}
        for user in wanted.get("users", [])
    ]
    found = broker.exported()
    names = differing(wanted, found)
    users = {user["name"] for user in found.get("users", [])}
    surplus = [name for name in module.params["absent_users"] if name in users]
    if not module.check_mode:
        if names:
            broker.load(wanted)
        for name in surplus:
            broker.ctl("delete_user", name)
    finish(module, names, [f"users: {name}" for name in surplus])


def absent(module: AnsibleModule, broker: Broker) -> None:
    """Remove the users and vhosts named in the definitions."""
    wanted, found = module.params["definitions"], broker.exported()
    there = {kind: {item["name"] for item in found.get(kind, [])} for kind in ("vhosts", "users")}
    gone = []
    for kind, command in (("vhosts", "delete_vhost"), ("users", "delete_user")):
        for item in wanted.get(kind, []):
            if item["name"] in there[kind]:
                gone.append(f"{kind}: {item['name']}")
                if not module.check_mode:
                    broker.ctl(command, item["name"])
    finish(module, [], gone)


def finish(module: AnsibleModule, come: list[str], gone: list[str]) -> None:
    """Leave, with a diff that names objects and shows no secret."""
    diff = {"before": "".join(f"{name}\n" for name in gone), "after": "".join(f"{name}\n" for name in come)}
    module.exit_json(changed=bool(come or gone), differing=come + gone, diff=diff)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "definitions": {"type": "dict", "required": True},
            "password_hashes": {"type": "dict", "default": {}, "no_log": True},
            "absent_users": {"type": "list", "elements": "str", "default": []},
            "state": {"choices": ["present", "absent"], "default": "present"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    unknown = set(module.params["definitions"]) - set(IDENTITY)
    if unknown:
        module.fail_json(msg=f"definitions: unknown kind {', '.join(sorted(unknown))}; there is {', '.join(IDENTITY)}.")
    broker = Broker(module)
    if not module.get_bin_path(CTL):
        if module.check_mode:
            finish(module, differing(module.params["definitions"], {}), [])
        module.fail_json(msg="rabbitmqctl is not here. Type: apt-get install rabbitmq-server")
    broker.wait()
    if module.params["state"] == "present":
        present(module, broker)
    else:
        absent(module, broker)


if __name__ == "__main__":
    main()
