"""Move the messages of one vhost from this host's RabbitMQ to another broker, by shovels, while both are in use.

A shovel for each queue publishes what comes into it to the queue of the same name on the other broker, and acknowledges
it here once that broker has confirmed it. It goes on until the move is confirmed: what a producer still publishes here,
and what waits here for its time, follows by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import (
    read_json,
    text_if_there,
    write_atomically,
    write_json,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import FILE, KIT_STATE, move_authority
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import (
    exported_definitions,
    import_definitions,
    rabbitmqctl,
    rows_of,
)

PREFIX = "celery-ops.move."
"""What the names of the shovels begin with; the queue's name follows."""
PLUGIN = "rabbitmq_shovel"
ENABLED = Path("/etc/rabbitmq/enabled_plugins")
STATE = KIT_STATE / "moves.json"
"""By vhost: on the broker that it comes to, the host that it comes from; here, whether the kit enabled the plugin."""
POLL = 1.0
"""Seconds between two looks at the queues."""
PLUGIN_TIMEOUT = 300.0
"""Seconds to enable or disable a plugin: the broker compiles its configuration anew."""

Definitions = dict[str, Any]


@dataclass
class Left:
    """What is still here, by queue."""

    to_move: dict[str, int] = field(default_factory=dict)
    timed: dict[str, int] = field(default_factory=dict)
    """Messages that wait for their time: they go to a queue of the first kind when it has come."""

    @property
    def is_none(self) -> bool:
        """Whether nothing is left."""
        return not self.to_move and not self.timed


def queues_to_move(definitions: Definitions, vhost: str, leave: str) -> list[dict[str, Any]]:
    """Return the definitions of the queues that hold messages of the application: those that last.

    `leave` is an expression for the names of others.
    """
    queues = [queue for queue in definitions.get("queues", []) if queue["vhost"] == vhost]
    return [
        queue
        for queue in queues
        if queue.get("durable") and not queue.get("auto_delete") and not re.fullmatch(leave, queue["name"])
    ]


def timed_queues(definitions: Definitions, vhost: str) -> set[str]:
    """Return the names of the queues in which messages wait until their time has come."""
    needed = {"x-message-ttl", "x-dead-letter-exchange"}
    queues = [queue for queue in definitions.get("queues", []) if queue["vhost"] == vhost]
    return {queue["name"] for queue in queues if needed <= set(queue.get("arguments", {}))}


def shovels(queues: Iterable[dict[str, Any]], vhost: str, urls: list[str]) -> list[dict[str, Any]]:
    """Return the parameters that make the shovels."""
    return [
        {
            "vhost": vhost,
            "component": "shovel",
            "name": PREFIX + queue["name"],
            "value": {
                "src-protocol": "amqp091",
                "src-uri": f"amqp:///{vhost}",
                "src-queue": queue["name"],
                "src-delete-after": "never",
                "src-prefetch-count": 200,
                "dest-protocol": "amqp091",
                "dest-uri": urls,
                "dest-queue": queue["name"],
                # Only where the application has not declared it there: of the kind that it is here.
                "dest-queue-args": with_type(queue),
                "ack-mode": "on-confirm",
                "reconnect-delay": 2,
            },
        }
        for queue in queues
    ]


def with_type(queue: dict[str, Any]) -> dict[str, Any]:
    """Return a queue's arguments, its type among them."""
    kind = {"x-queue-type": queue["type"]} if queue.get("type") else {}
    return {**kind, **queue.get("arguments", {})}


def ours(definitions: Definitions, vhost: str) -> dict[str, Any]:
    """Return the values of the kit's shovels that are defined, by name."""
    return {
        one["name"]: one["value"]
        for one in definitions.get("parameters", [])
        if one.get("component") == "shovel" and one.get("vhost") == vhost and one["name"].startswith(PREFIX)
    }


def differing(wanted: Iterable[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return those of the wanted shovels that are not defined like that."""
    return [one for one in wanted if found.get(one["name"]) != one["value"]]


def plugins() -> set[str]:
    """Return the plugins that are enabled, by the file that says so."""
    return set(re.findall(r"\w+", ENABLED.read_text())) if ENABLED.exists() else set()


def has_vhost(definitions: Definitions, vhost: str) -> bool:
    """Whether the broker has the vhost."""
    return any(one["name"] == vhost for one in definitions["vhosts"])


def definitions_with(vhost: str) -> Definitions:
    """Return the broker's definitions. Raises OperatorError where it does not have the vhost."""
    definitions = exported_definitions()
    if not has_vhost(definitions, vhost):
        raise OperatorError(f"RabbitMQ has no vhost {vhost} here: there is nothing to move.")
    return definitions


def switch_plugin(verb: str) -> None:
    """Enable or disable the plugin, while the broker runs. Raises OperatorError."""
    rc, out = run("rabbitmq-plugins", "--quiet", verb, PLUGIN, timeout=PLUGIN_TIMEOUT)
    if rc:
        raise OperatorError(f"rabbitmq-plugins {verb} {PLUGIN} failed: {out.strip()[-300:]}")


def note(vhost: str, **changes: Any) -> bool:
    """Change what is noted of a vhost; a value of None removes it. Return whether that was a change."""
    known = read_json(STATE)
    entry = {key: value for key, value in {**known.get(vhost, {}), **changes}.items() if value is not None}
    content = {name: one for name, one in {**known, vhost: entry}.items() if one}
    if content == known:
        return False
    STATE.parent.mkdir(parents=True, exist_ok=True)
    write_json(STATE, content)
    return True


def noted(vhost: str) -> dict[str, Any]:
    """Return what is noted of a vhost."""
    return read_json(STATE).get(vhost, {})


def define(parameters: list[dict[str, Any]]) -> None:
    """Define shovels; no list of processes shows them, as a URL has a password."""
    import_definitions({"parameters": parameters})


def left(vhost: str, to_move: Iterable[str], timed: Iterable[str]) -> Left:
    """Return what is still here. Raises OperatorError."""
    counts = {row["name"]: int(row["messages"] or 0) for row in rows_of("list_queues", "name", "messages", vhost=vhost)}
    return Left(*({name: counts[name] for name in sorted(names) if counts.get(name)} for names in (to_move, timed)))


def trust(vhost: str, ca: str, *, check_mode: bool = False) -> bool:
    """Write the CA by which the shovels of a vhost verify the other broker; return whether it was another one."""
    file = move_authority(vhost)
    if not ca or text_if_there(file) == ca:
        return False
    if not check_mode:
        write_atomically(file, ca, FILE)
    return True


def begin(vhost: str, leave: str, urls: list[str], *, check_mode: bool = False) -> bool:
    """Define the shovels that are not there yet; return whether there were such. Raises OperatorError."""
    definitions = definitions_with(vhost)
    wanted = shovels(queues_to_move(definitions, vhost, leave), vhost, urls)
    missing = differing(wanted, ours(definitions, vhost))
    if not missing or check_mode:
        return bool(missing)
    if PLUGIN not in plugins():
        note(vhost, plugin=True)
        switch_plugin("enable")
    define(missing)
    return True


def wait(vhost: str, leave: str, seconds: float) -> Left:
    """Return what is left once nothing is left to move, or after that time; what is timed is not waited for.

    Raises OperatorError where a shovel does not run.
    """
    definitions, deadline = exported_definitions(), time.monotonic() + seconds
    names = [queue["name"] for queue in queues_to_move(definitions, vhost, leave)]
    timed = timed_queues(definitions, vhost)
    while (still := left(vhost, names, timed)).to_move and time.monotonic() < deadline:
        time.sleep(POLL)
    if still.to_move:
        refuse_broken(vhost)
    return still


def refuse_broken(vhost: str) -> None:
    """Raise OperatorError where a shovel of ours does not run."""
    rows = rabbitmqctl("shovel_status", "--formatter", "json")
    broken = [
        row for row in rows if row["vhost"] == vhost and row["name"].startswith(PREFIX) and row["state"] != "running"
    ]
    if broken:
        names = ", ".join(sorted(row["name"].removeprefix(PREFIX) for row in broken))
        said = next((str(row["termination_reason"]) for row in broken if row.get("termination_reason")), "no answer")
        raise OperatorError(
            f"The messages of {names} can't be moved: this host's RabbitMQ does not reach the other broker "
            f"({said[:300]}). They stay here. Look: tail -n 50 /var/log/rabbitmq/rabbit@*.log"
        )


def clients(connections: Iterable[dict[str, Any]]) -> list[str]:
    """Return who is connected from where; a shovel of this broker is not. RabbitMQ 4 gives an address as numbers."""
    remote = (row for row in connections if row["peer_host"] not in ("", None, "unknown"))
    return sorted({f"{row['user']} from {str(row['name']).partition(' ')[0].rpartition(':')[0]}" for row in remote})


def finish(vhost: str, leave: str, *, check_mode: bool = False) -> bool:
    """Remove the shovels, then vhost and user, where nothing is left and nobody is connected. Raises OperatorError."""
    definitions = exported_definitions()
    if not has_vhost(definitions, vhost):
        return False
    queues = [queue["name"] for queue in queues_to_move(definitions, vhost, leave)]
    connections = rows_of("list_connections", "user", "peer_host", "name", "vhost")
    users = clients(row for row in connections if row["vhost"] == vhost)
    if users:
        raise OperatorError(f"Clients are still connected to vhost {vhost}: {', '.join(users)}. Nothing was removed.")
    still = left(vhost, queues, timed_queues(definitions, vhost))
    if not still.is_none:
        counts = ", ".join(f"{name} {count}" for name, count in {**still.to_move, **still.timed}.items())
        raise OperatorError(f"Vhost {vhost} still has messages: {counts}. Nothing was removed.")
    if check_mode:
        return True
    for name in ours(definitions, vhost):
        rabbitmqctl("clear_parameter", "--vhost", vhost, "shovel", name, raw=True)
    if noted(vhost).get("plugin") and not others(definitions, vhost):
        switch_plugin("disable")
    rabbitmqctl("delete_vhost", vhost, raw=True)
    for user in users_of(definitions, vhost):
        rabbitmqctl("delete_user", user, raw=True)
    note(vhost, plugin=None)
    move_authority(vhost).unlink(missing_ok=True)
    return True


def users_of(definitions: Definitions, vhost: str) -> list[str]:
    """Return the users that may do something in this vhost and nowhere else; no administrators."""
    allowed = definitions.get("permissions", [])
    elsewhere = {one["user"] for one in allowed if one["vhost"] != vhost}
    tagged = {user["name"] for user in definitions["users"] if user.get("tags")}
    return sorted({one["user"] for one in allowed if one["vhost"] == vhost} - elsewhere - tagged)


def others(definitions: Definitions, vhost: str) -> list[str]:
    """Return the names of shovels that are not ours for this vhost."""
    found = [one for one in definitions.get("parameters", []) if one.get("component") == "shovel"]
    return [one["name"] for one in found if one.get("vhost") != vhost or not one["name"].startswith(PREFIX)]


def outcome(vhost: str, host: str, still: Left) -> str:
    """Return what is left on the old broker, and what to type next."""
    again = f"ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from={host}"
    if still.to_move:
        counts = ", ".join(f"{name} {count}" for name, count in still.to_move.items())
        return f"{vhost}: {host} still has messages ({counts}), and they are being moved. Look again: {again}"
    if still.timed:
        return (
            f"{vhost}: {sum(still.timed.values())} messages wait on {host} until their time has come (countdown, ETA, "
            f"retry), and are moved then. Keep {host} running, and look again: {again}"
        )
    return (
        f"{vhost}: nothing is left on {host}, and what is still published there is moved. Once no program publishes "
        f"to it any more, remove {vhost} from it: {again} -e rabbitmq_move_confirm=yes"
    )


def confirmed(vhost: str, host: str) -> str:
    """Return what a confirmed move has done."""
    return f"{vhost} has moved: its vhost and user are gone from {host}, whose RabbitMQ runs on as it is."
