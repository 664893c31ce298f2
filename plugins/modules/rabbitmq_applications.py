#!/usr/bin/python
"""Give applications their vhost, user, policies and dead-letter queue in RabbitMQ, in one import."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_applications
short_description: Give applications their vhost, user, policies and dead-letter queue in RabbitMQ
description:
  - Each application gets a vhost and a user of its name, a policy that sends dead messages to the exchange
    C(<name>.dead), and the quorum queue C(<name>.dead) behind it.
  - Compares that with what the broker exports, imports just what differs in one go, and looks again. What the broker
    has beyond it stays. A user whose password differs gets the new one, so rotating a password works.
  - Exchanges and queues can't be changed once they exist. One that exists with other properties fails the module.
options:
  applications:
    description: The applications.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The application's name, which is also its vhost's.
        type: str
        required: true
      user:
        description: The user's name; the application's by default.
        type: str
        default: ""
      password:
        description: The user's password. Required with O(state=present).
        type: str
      dead_letter_except:
        description: A regular expression of queues whose messages may expire; they get no dead-letter exchange.
        type: str
        default: 'amq\..*'
      limited_users:
        description: >-
          Further users of the vhost, each with its own permissions. They carry a tag; one with the tag that is not
          listed any more is removed.
        type: list
        elements: dict
        default: []
        suboptions:
          name: {description: The user's name., type: str, required: true}
          password: {description: Its password., type: str, required: true}
          configure: {description: "What it may declare and delete, a regular expression.", type: str, required: true}
          write: {description: What it may publish to and bind., type: str, required: true}
          read: {description: What it may consume from and bind to., type: str, required: true}
  delivery_limit:
    description: Times the broker redelivers a message before it goes to the dead-letter queue.
    type: int
    default: 5
  dead_letter_at_least_once:
    description:
      - Whether a message stays in its queue until the dead-letter queue has confirmed it, and comes again if that
        fails.
        Without, one may get lost on its way while a node of the cluster is going down.
    type: bool
    default: false
  absent_users:
    description: Users that must not exist, such as V(guest). They go after the import.
    type: list
    elements: str
    default: []
  change_users:
    description: >-
      Whether a user that exists may get another password, which its programs learn only by their next deploy. Without,
      the module fails before anything changes.
    type: bool
    default: true
  state:
    description: V(absent) removes the applications' users and vhosts, with all that is in them.
    choices: [present, absent]
    default: present
    type: str
  timeout:
    description: Seconds to wait for the broker to have started.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Where RabbitMQ is not installed or not running as yet, everything counts as missing.
  diff_mode:
    support: full
    description: Shows the objects that differ, with their password hashes hidden.
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_applications:
    applications:
      - name: shop
        password: "{{ vault_shop_broker_password }}"
    absent_users: [guest]

- rabbitmq_applications:
    applications: [{name: shop}]
    state: absent
"""
RETURN = r"""
differing:
  description: "What was not as it should be, by kind and name, such as C(users: shop)."
  returned: success
  type: list
  elements: str
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from typing import Any, NoReturn

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import LEASE_QUEUE, RABBITMQ_DATA
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import (
    LIMITED,
    is_password,
    limited_users,
    namesakes,
    user_names,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

Definitions = dict[str, list[dict[str, Any]]]

# What tells two objects of a kind apart.
IDENTITY = {
    "vhosts": ("name",),
    "users": ("name",),
    "permissions": ("vhost", "user"),
    "policies": ("vhost", "name"),
    "exchanges": ("vhost", "name"),
    "queues": ("vhost", "name"),
    "bindings": ("vhost", "source", "destination_type", "destination", "routing_key", "arguments"),
}
IMMUTABLE = ("exchanges", "queues")  # an import passes over them in silence
NEVER_DROPPED = {"delivery-limit": 1_000_000_000}
"""No number means "never" to every version of RabbitMQ; this one comes to the same."""
LEASE = rf"^{re.escape(LEASE_QUEUE)}\."
CTL = "rabbitmqctl"
CTL_TIMEOUT = 120  # seconds; a hung node would keep rabbitmqctl for ever


def identity(kind: str, item: dict[str, Any]) -> tuple[str, ...]:
    """What tells this object from others of its kind."""
    parts = [item.get("arguments", {}) if key == "arguments" else item[key] for key in IDENTITY[kind]]
    return tuple(part if isinstance(part, str) else json.dumps(part, sort_keys=True) for part in parts)


def label(kind: str, item: dict[str, Any]) -> str:
    """The object's kind and name, for people."""
    return f"{kind}: {' '.join(part for part in identity(kind, item) if part not in ('', '{}'))}"


def counterpart(kind: str, item: dict[str, Any], found: Definitions) -> dict[str, Any] | None:
    """The same object as the broker has it."""
    return next((other for other in found.get(kind, []) if identity(kind, other) == identity(kind, item)), None)


def differing_keys(item: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """The wanted properties that differ. What an export leaves out (some versions do) is off or empty."""
    return [key for key, value in item.items() if known.get(key) != value and (key in known or value)]


def difference(wanted: Definitions, found: Definitions) -> Definitions:
    """The wanted objects that are missing, or of which a wanted property differs."""
    result: Definitions = {}
    for kind, items in wanted.items():
        for item in items:
            known = counterpart(kind, item, found)
            if known is None or differing_keys(item, known):
                result.setdefault(kind, []).append(item)
    return result


def differing(wanted: Definitions, found: Definitions) -> list[str]:
    """The names of `difference`."""
    return [label(kind, item) for kind, items in difference(wanted, found).items() for item in items]


def user_of(application: dict[str, Any]) -> str:
    """Return the name of an application's user."""
    return application.get("user") or application["name"]


def definitions_of(application: dict[str, Any], delivery_limit: int, at_least_once: bool = False) -> Definitions:
    """Return an application's whole access model, without its passwords."""
    name, dead = application["name"], f"{application['name']}.dead"
    user, limited = user_of(application), application.get("limited_users") or []
    tasks = f"^(?!({application['dead_letter_except']}|{name}\\.dead)$)"
    policy = {"vhost": name, "apply-to": "queues", "priority": 0}
    # RabbitMQ does the one only with the other, which by itself matters to queues with a maximum length alone.
    surely = {"dead-letter-strategy": "at-least-once", "overflow": "reject-publish"} if at_least_once else {}
    return {
        "vhosts": [{"name": name}],
        "users": [
            {"name": each, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": tags}
            for each, tags in [(user, []), *((each["name"], [LIMITED]) for each in limited)]
        ],
        "permissions": [
            {"user": user, "vhost": name, "configure": ".*", "write": ".*", "read": ".*"},
            *(
                {"user": each["name"], "vhost": name, **{key: each[key] for key in ("configure", "write", "read")}}
                for each in limited
            ),
        ],
        "policies": [
            {
                **policy,
                "name": "celery-ops-tasks",
                "pattern": tasks,
                "definition": {"dead-letter-exchange": dead, "delivery-limit": delivery_limit, **surely},
            },
            # RabbitMQ 4 drops a message after 20 deliveries unless told otherwise. Listing a dead letter is one,
            # and so is the token that a scheduler gets which ends before it leads.
            {**policy, "name": "celery-ops-dead", "pattern": f"^{name}\\.dead$", "definition": NEVER_DROPPED},
            {**policy, "name": "celery-ops-lease", "pattern": LEASE, "definition": NEVER_DROPPED},
        ],
        "exchanges": [
            {"name": dead, "vhost": name, "type": "fanout", "durable": True, "auto_delete": False, "arguments": {}}
        ],
        "queues": [
            {
                **{"name": dead, "vhost": name, "durable": True, "auto_delete": False},
                "arguments": {"x-queue-type": "quorum"},
            }
        ],
        "bindings": [
            {
                **{"source": dead, "vhost": name, "destination": dead, "destination_type": "queue"},
                **{"routing_key": "", "arguments": {}},
            }
        ],
    }


def merged(each: list[Definitions]) -> Definitions:
    """Return the definitions of all applications as one."""
    return {kind: [item for definitions in each for item in definitions.get(kind, [])] for kind in IDENTITY}


def with_passwords(
    wanted: Definitions, applications: list[dict[str, Any]], found: Definitions, change: bool = True
) -> Definitions:
    """Return the definitions with each user's password hash: the broker's own where it is of that password.

    Raises OperatorError for an application without a password, and for another password of a user that is there,
    unless that may `change`.
    """
    passwords = {user_of(application): application["password"] for application in applications}
    limited = {each["name"]: each["password"] for one in applications for each in one.get("limited_users") or []}
    hashes = {user["name"]: user.get("password_hash", "") for user in found.get("users", [])}
    for name, password in {**passwords, **limited}.items():
        if not password:
            raise OperatorError(f"applications: {name} has no password, which would let anyone in. Give it one.")
        if not is_password(hashes.get(name, ""), password):
            if name in hashes and name in passwords and not change:
                [other] = [each for each in user_names(name.removesuffix("-2")) if each != name]
                raise OperatorError(
                    f"The user {name} of RabbitMQ has another password, and programs that run use it. Nothing was "
                    "changed at the broker. Give the new password to another user. Write: "
                    f"celery_app_broker_user: {other}"
                )
            salt = os.urandom(4)
            hashes[name] = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {**wanted, "users": [{**user, "password_hash": hashes[user["name"]]} for user in wanted["users"]]}


def refuse_immutable(changes: Definitions, found: Definitions) -> None:
    """Raise OperatorError for an object that exists with other properties and can't be changed by an import."""
    for kind in IMMUTABLE:
        for item in changes.get(kind, []):
            known = counterpart(kind, item, found)
            if known is None:
                continue
            words = [f"{key} is {known.get(key)!r}, not {item[key]!r}" for key in differing_keys(item, known)]
            way = (
                f"Look what is in it, then: rabbitmqctl delete_queue -p {item['vhost']} {item['name']}"
                if kind == "queues"
                else "Delete it (by rabbitmqadmin or from an AMQP client: rabbitmqctl can't), or give it another name"
            )
            raise OperatorError(
                f"{kind[:-1]} {item['name']} exists in vhost {item['vhost']} with other properties, which RabbitMQ "
                f"can't change: {'; '.join(words)}. Nothing was changed. {way}, and run this again."
            )


def shown(wanted: Definitions, found: Definitions) -> dict[str, str]:
    """Before and after of the objects that differ, one a line, without a secret."""
    before, after = [], []
    for kind, items in wanted.items():
        for item in items:
            known = counterpart(kind, item, found)
            public = {**item, "password_hash": "(hidden)"} if "password_hash" in item else item
            after.append(f"{label(kind, item)} {json.dumps(public, sort_keys=True)}\n")
            if known is not None:
                was = {**public, **{key: known.get(key) for key in differing_keys(item, known)}}
                if was.get("password_hash") != public.get("password_hash"):
                    was["password_hash"] = "(hidden, another)"
                before.append(f"{label(kind, item)} {json.dumps(was, sort_keys=True)}\n")
    return {"before": "".join(before), "after": "".join(after)}


class Broker:
    """rabbitmqctl on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl; raise OperatorError with its words."""
        command = ["timeout", "--kill-after=5", str(CTL_TIMEOUT), CTL, "--quiet", *arguments]
        rc, out, err = self.module.run_command(command)
        if rc:
            words = (err or out).partition("Most common reasons")[0].strip()[:2000]  # the rest is general advice
            why = f"hung for {CTL_TIMEOUT} s and was ended" if rc in (124, 137) else f"ended with {rc}"
            raise OperatorError(f"rabbitmqctl {arguments[0]} {why}: {words}")
        return out

    def exported(self) -> Definitions:
        """All definitions as the broker has them."""
        out = self.ctl("export_definitions", "-", "--format", "json")
        try:
            return json.loads(out[out.index("{") :])
        except ValueError:
            raise OperatorError(f"rabbitmqctl export_definitions gave no JSON: {out[:500]!r}") from None

    def exported_once_started(self, seconds: int) -> Definitions:
        """As `exported`, after waiting for a broker that is still starting. A running one is asked once only."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.exported()
            except OperatorError as problem:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise OperatorError(
                        f"RabbitMQ did not answer within {seconds} s. {problem} Start it: systemctl start "
                        "rabbitmq-server (without systemd: service rabbitmq-server start), look at /var/log/rabbitmq, "
                        "and ask it: rabbitmqctl status"
                    ) from None
            # It ends at once where there is no node as yet, so that alone it is no wait.
            with contextlib.suppress(OperatorError):
                self.ctl("await_startup", "--timeout", str(max(1, round(left))))
            time.sleep(0.5)

    def load(self, definitions: Definitions) -> None:
        """Import definitions from a file that only the broker's user can read; rabbitmqctl runs as that user."""
        with tempfile.NamedTemporaryFile("w", dir=RABBITMQ_DATA, suffix=".json") as file:
            shutil.chown(file.name, "rabbitmq", "rabbitmq")
            json.dump(definitions, file)
            file.flush()
            self.ctl("import_definitions", file.name)

    def delete(self, command: str, kind: str, name: str) -> None:
        """Delete a user or vhost; another node of the cluster may have been quicker."""
        try:
            self.ctl(command, name)
        except OperatorError:
            if name in names(self.exported(), kind):
                raise


def names(definitions: Definitions, kind: str) -> list[str]:
    """The names of all objects of that kind."""
    return [item["name"] for item in definitions.get(kind, [])]


def present(module: AnsibleModule, broker: Broker, wanted: Definitions, found: Definitions) -> NoReturn:
    """Import what differs, then remove users that must not exist."""
    changes = difference(wanted, found)
    refuse_immutable(changes, found)
    former = [user for vhost in names(wanted, "vhosts") for user in limited_users(vhost, found)]
    gone = [*module.params["absent_users"], *(user for user in former if user not in names(wanted, "users"))]
    surplus = [name for name in gone if name in names(found, "users")]
    if not module.check_mode:
        if changes:
            broker.load(changes)
            still = differing(changes, broker.exported())
            if still:
                raise OperatorError(
                    f"RabbitMQ accepted the import, but these still differ: {', '.join(still)}. Compare with: "
                    "rabbitmqctl export_definitions -"
                )
        for name in surplus:
            broker.delete("delete_user", "users", name)
    diff = shown(changes, found)
    diff["before"] += "".join(f"users: {name}\n" for name in surplus)
    finish(module, differing(changes, found) + [f"users: {name}" for name in surplus], diff)


def absent(module: AnsibleModule, broker: Broker, wanted: Definitions, found: Definitions) -> NoReturn:
    """Remove the users and vhosts named in the definitions, if they are the kit's."""
    gone, vhosts = [], []
    for vhost in names(wanted, "vhosts"):
        if found and (theirs := namesakes(vhost, found)):
            module.warn(f"RabbitMQ: {' and '.join(theirs)}: not from this kit, and stays.")
        else:
            vhosts.append(vhost)
    users = [user for vhost in vhosts for user in (*user_names(vhost), *limited_users(vhost, found))]
    for kind, command, gone_names in (
        ("vhosts", "delete_vhost", vhosts),
        ("users", "delete_user", users),
    ):
        for name in gone_names:
            if name in names(found, kind):
                gone.append(f"{kind}: {name}")
                if not module.check_mode:
                    broker.delete(command, kind, name)
    finish(module, gone, {"before": "".join(f"{name}\n" for name in gone), "after": ""})


def finish(module: AnsibleModule, differs: list[str], diff: dict[str, str]) -> NoReturn:
    """Leave, saying what was done."""
    module.exit_json(changed=bool(differs), differing=differs, diff=diff)


def run(module: AnsibleModule) -> NoReturn:
    """Do it. Raises OperatorError."""
    applications = module.params["applications"]
    limit, surely = module.params["delivery_limit"], module.params["dead_letter_at_least_once"]
    wanted = merged([definitions_of(each, limit, surely) for each in applications])
    gone = module.params["state"] == "absent"
    broker = Broker(module)
    if not module.get_bin_path(CTL):
        if not (module.check_mode or gone):
            raise OperatorError("rabbitmqctl is not here. Type: apt-get install rabbitmq-server")
        found: Definitions = {}
    elif module.check_mode:
        try:
            found = broker.exported()
        except OperatorError as problem:
            module.warn(f"RabbitMQ doesn't answer: all counts as missing. {problem}")
            found = {}
    else:
        found = broker.exported_once_started(module.params["timeout"])
    if gone:
        absent(module, broker, wanted, found)
    change = module.params["change_users"]
    present(module, broker, with_passwords(wanted, applications, found, change), found)


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
                    "user": {"type": "str", "default": ""},
                    "password": {"type": "str", "no_log": True},
                    "dead_letter_except": {"type": "str", "default": r"amq\..*"},
                    "limited_users": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "name": {"type": "str", "required": True},
                            "password": {"type": "str", "required": True, "no_log": True},
                            "configure": {"type": "str", "required": True},
                            "write": {"type": "str", "required": True},
                            "read": {"type": "str", "required": True},
                        },
                    },
                },
            },
            "delivery_limit": {"type": "int", "default": 5},
            "dead_letter_at_least_once": {"type": "bool", "default": False},
            "absent_users": {"type": "list", "elements": "str", "default": []},
            "change_users": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except OperatorError as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
