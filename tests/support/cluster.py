"""The brokers of a scenario as one cluster."""

from __future__ import annotations

import json
import re

from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import apart

from support.host import APP, Host
from support.wait import wait_until

RETURN = 120
"""Seconds in which a node is back."""


def node_name(host: Host) -> str:
    """Erlang's name of a host's node."""
    return f"rabbit@{host.name}"


def nodes(brokers: list[Host]) -> list[str]:
    """Erlang's names of the hosts' nodes, in order."""
    return sorted(node_name(host) for host in brokers)


def status(host: Host) -> dict:
    """What a node says of its cluster; empty while it does not answer."""
    done = host.run("rabbitmqctl -q cluster_status --formatter json")
    return json.loads(done.stdout) if done.rc == 0 else {}


def running(host: Host) -> list[str]:
    """The nodes of the cluster that run, as one of them sees it."""
    return sorted(status(host).get("running_nodes", []))


def quorum_queues(host: Host) -> dict[str, dict]:
    """The application's quorum queues by name, as a node sees them: their members and messages."""
    rows = json.loads(host.output(f"rabbitmqctl -q -p {APP} list_queues name type members messages --formatter json"))
    return {row["name"]: row for row in rows if str(row["type"]).endswith("quorum")}


def await_whole(brokers: list[Host]) -> None:
    """Wait until all nodes run as one, and their queues have caught up.

    A node that was away for some 8 to 20 s may stay apart: then what status.yml says is typed on its host.
    """

    def is_whole() -> bool:
        said, members = [status(host) for host in brokers], set(nodes(brokers))
        lone = {node for one in said for node in apart(set(one.get("partitions") or {}), members)}
        for host in brokers:
            if node_name(host) in lone:
                host.output("systemctl restart rabbitmq-server")
        return all(sorted(one.get("running_nodes", [])) == nodes(brokers) and not one["partitions"] for one in said)

    try:
        wait_until(is_whole, RETURN, "all nodes of the cluster")
    except AssertionError as late:
        raise AssertionError(f"{late}; {[(host.name, status(host)) for host in brokers]}") from None
    brokers[0].output(f"rabbitmq-upgrade await_online_quorum_plus_one --timeout {RETURN}")


def leads_from(host: Host, brokers: list[Host]) -> Host:
    """The broker that the leading scheduler of a host is connected to."""
    # As JSON a channel has no node.
    said = brokers[0].output(f"rabbitmqctl -q -p {APP} list_consumers queue_name channel_pid consumer_tag active")
    by = f"{host.program('scheduler').name}@{host.name}"
    [channel] = re.findall(rf"^celery-ops\.scheduler\.\S+\s+<'?rabbit@([\w-]+)\S*\s+{by}\s+true$", said, re.MULTILINE)
    return next(host for host in brokers if host.name == channel)
