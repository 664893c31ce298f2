"""RabbitMQ may be installed, or may be used as it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import (
    debian,
    rabbitmq,
    rabbitmq_cluster,
    rabbitmq_versions,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import Versions


def in_use(app: str, shared: bool, time_limit: int) -> Iterator[str]:
    """A broker that the kit did not install serves nobody else, or is left as it is."""
    if not debian.was_there_before("rabbitmq"):
        if shared:
            yield "rabbitmq_shared is true, and the host has no RabbitMQ of its own. Write: rabbitmq_shared: false"
        return
    try:
        if shared:
            yield from namesakes(app, rabbitmq.exported_definitions())
            yield from consumer_timeout(rabbitmq.consumer_timeout(), time_limit)
        elif not rabbitmq.is_configured():
            found = rabbitmq.signs_of_use(app)
            if found:
                yield (
                    f"RabbitMQ was there before, and is in use ({', '.join(found)}): the kit would change its "
                    "configuration, delete guest and restart it. Write: rabbitmq_shared: true (the application gets a "
                    "vhost and a user, and nothing else is changed), or use another host in group rabbitmq"
                )
    except OperatorError as why:
        yield f"RabbitMQ was there before, and has to run so that the kit can tell who uses it. {why}"


def data(found: Versions) -> Iterator[str]:
    """The package that is installed, or is to be, can start on the data of the node."""
    if found.cannot_start and found.data:
        version, move = rabbitmq_versions.text(found.data), "ansible-playbook playbooks/rabbitmq_move.yml"
        yield (
            f"{found.cannot_start}. The data are left as they are. Start a copy of /var/lib/rabbitmq on a host with "
            f"RabbitMQ {version} and the same node name. Set the data aside here: service rabbitmq-server stop; mv "
            f"{rabbitmq_versions.DATA} {rabbitmq_versions.DATA}-{version}. Then move the application to this host: "
            f"{move} -e rabbitmq_move_from=<that host> (docs/fleet.md, Upgrade Debian on the broker's host)"
        )


def consumer_timeout(seconds: int | None, time_limit: int) -> Iterator[str]:
    """Somebody else's broker leaves a worker alone for as long as a task may take."""
    if seconds is not None and seconds <= time_limit:
        yield (
            f"celery_app_task_time_limit is {time_limit}, and the broker, whose consumer_timeout is {seconds} s, would "
            "cut off a worker that is still at work. Write: celery_app_task_time_limit: "
            f"{max(2, seconds - 60)}, or raise consumer_timeout in the broker's configuration"
        )


def namesakes(app: str, definitions: dict[str, Any]) -> Iterator[str]:
    """A vhost or a user of the application's name on somebody else's broker is one that the kit made."""
    if found := rabbitmq.namesakes(app, definitions):
        whose = f"RabbitMQ has somebody else's {' and '.join(found)}"
        yield f"celery_app_name is {app}: {whose}. Write: celery_app_name: {app}_app"


def identity(node_name: str, nodes: list[str], bind: str, data: Path = rabbitmq_versions.DATA) -> Iterator[str]:
    """Name, address and cluster of the node. How to drop its data is not said where a cluster has its share there."""
    if strange := list(members(node_name, nodes, data)):
        yield from strange
        return
    yield from node(node_name, data, clustered=bool(nodes))
    if not nodes:
        yield from distribution_address(node_name, bind)


def node(wanted: str, data: Path = rabbitmq_versions.DATA, clustered: bool = False) -> Iterator[str]:
    """The node's name does not hide the data of an earlier one, such as that of a broker that was alone so far."""
    found = rabbitmq_versions.nodes(data)
    if found and wanted not in found:
        # In a cluster the addresses of names are the kit's, and each node has variables of its own.
        write, address = ("Write in its host_vars", "") if clustered else ("Write", address_of(found[0]))
        shared = len(rabbitmq_cluster.members_of(found[0], data)) > 1
        drop = f", or, if the data is not needed, type: service rabbitmq-server stop; rm -r {data}"
        yield (
            f"rabbitmq_node_name is {wanted}, and the host holds data of {', '.join(found)}: it would be hidden. "
            f"{write}: rabbitmq_node_name: {found[0]}{address}{'' if shared else drop}"
        )


def members(node_name: str, nodes: list[str], data: Path = rabbitmq_versions.DATA) -> Iterator[str]:
    """All members of the node's cluster are in the inventory: a node alone of three does nothing but wait for them."""
    held = rabbitmq_versions.nodes(data)
    own = node_name if node_name in held else next(iter(held), node_name)
    wanted = nodes or [own]
    if strange := [each for each in rabbitmq_cluster.members_of(own, data) if each not in (own, *wanted)]:
        how = rabbitmq_cluster.shrinking(strange, to_one=len(wanted) == 1)
        yield (
            f"{own} is a member of a cluster with {', '.join(strange)}, and the inventory (group rabbitmq) has "
            f"{', '.join(wanted)} alone. {how} (docs/fleet.md, To shrink)"
        )


def address_of(node_name: str) -> str:
    """The further line to write for a node whose name does not lead to 127.0.0.1."""
    try:
        address = socket.gethostbyname(node_name.rpartition("@")[2])
    except OSError:
        return ""
    return "" if address == "127.0.0.1" else f" and rabbitmq_distribution_bind: {address}"


def distribution_address(node_name: str, bind: str) -> Iterator[str]:
    """The node's host name resolves to an address that Erlang's port mapper listens on; else the broker won't boot."""
    host = node_name.rpartition("@")[2]
    try:
        address = socket.gethostbyname(host)
    except OSError:
        line = f"{'127.0.1.1' if bind.startswith('127.') else bind} {host}"
        yield f"rabbitmq_node_name is {node_name}, and {host} does not resolve on the host. Write in /etc/hosts: {line}"
        return
    if bind not in (address, "0.0.0.0"):
        yield (
            f"rabbitmq_distribution_bind is {bind}, and rabbitmq_node_name {node_name} leads to {address}, where the "
            f"broker would not find its port mapper. Write: rabbitmq_distribution_bind: {address}"
        )
