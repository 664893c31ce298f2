"""Which hosts of an inventory form a RabbitMQ cluster, and the name and the address that each node has in it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import shrinking
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import address_of, as_ip, is_loopback
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_members

Given = Callable[[str], Mapping[str, Any]]
"""The variables that the inventory gives to a host, by the host's name."""


def cluster_members(groups: Mapping[str, list[str]], given: Given) -> list[str]:
    """The hosts that form a cluster: the group rabbitmq, where it has several. Empty for a broker that is alone.

    Several brokers are systems of their own, each with its programs, where each has its own result store, or one
    listens on loopback or is somebody else's.
    """
    members = list(groups.get("rabbitmq") or [])
    own_stores = len(groups.get("result_store") or []) > 1 and not store_members(groups, given)
    own_systems = own_stores or any(
        is_loopback(given(name).get("rabbitmq_bind")) or boolean(given(name).get("rabbitmq_shared"), strict=False)
        for name in members
    )
    return [] if len(members) < 2 or own_systems else members


def cluster_nodes(members: list[str], given: Given) -> list[dict[str, str]]:
    """Erlang's name and the address of each member, as the role takes them."""
    return [{"name": node_name(name, given(name)), "address": node_address(name, given(name))} for name in members]


def node_name(host: str, given: Mapping[str, Any]) -> str:
    """Erlang's name of a member: the inventory's own, or one of the host's short name."""
    if name := given.get("rabbitmq_node_name"):
        return str(name)
    short = host if as_ip(host) else host.partition(".")[0]
    return "rabbit@" + re.sub(r"[^a-z0-9-]", "-", short.lower())


def node_address(host: str, given: Mapping[str, Any]) -> str:
    """The IP address at which the other members reach a host; a name that does not lead to one is returned as it is."""
    if (own := given.get("rabbitmq_distribution_bind")) and not is_loopback(own):
        return str(own)
    text = address_of(host, given)
    if as_ip(text):
        return text
    try:
        return socket.gethostbyname(text)
    except (OSError, UnicodeError):
        return text


def refusals(nodes: list[str], found: Mapping[str, Mapping[str, Any]], tls: bool = False) -> list[str]:
    """Return what keeps the hosts of a play from being one cluster of these nodes, with what to do.

    `found` is what the module rabbitmq_node_info says of each host; `tls` whether the nodes are to use it. Pure.
    """
    host_of = {info["node"]: host for host, info in found.items()}
    return [
        *(text for host, info in found.items() for text in _host_refusals(host, info, nodes)),
        *_different_releases(found),
        *_strange_members(nodes, found),
        *_lost_members(found, host_of),
        *_several_clusters(found),
        *_blank_hosts_alone(nodes, found),
        *_other_distribution(nodes, found, tls),
    ]


def _host_refusals(host: str, info: Mapping[str, Any], nodes: list[str]) -> Iterator[str]:
    if info["node"] not in nodes:
        yield (
            f"{host} would be {info['node']}, which is not one of the cluster's nodes ({', '.join(nodes)}). Write it "
            "in rabbitmq_cluster_nodes"
        )
    if not info["address"]:
        yield (
            f"{host} does not have the address that {info['node']} is to have in the cluster. Write its own address "
            "in its "
            "host_vars: rabbitmq_distribution_bind: 10.0.0.11"
        )
    if not info["systemd"]:
        yield f"{host} runs without systemd, where the kit supports a single broker. Use one host in group rabbitmq"
    if info["data"] and not info["members"]:
        yield (
            f"{host} holds the data of {', '.join(info['data'])}, and as {info['node']} it would be hidden. To take it "
            f"along as a member of the cluster, write in its host_vars: rabbitmq_node_name: {info['data'][0]}"
        )
    if info["cookie"] == "other" and len(info["members"]) > 1:
        yield (
            f"{host} is a member of {', '.join(info['members'])} and has another Erlang cookie than the control "
            "node. If a rotation was interrupted, complete it: ansible-playbook playbooks/rotate_secrets.yml. Else "
            f"copy /var/lib/rabbitmq/.erlang.cookie of {host} to the control node, into the file that "
            "rabbitmq_erlang_cookie "
            "is kept in"
        )


def _different_releases(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    releases = {host: info["release"] for host, info in found.items()}
    if len(set(releases.values())) > 1:
        each = ", ".join(f"{host}: {release}" for host, release in releases.items())
        yield (
            f"The brokers have different releases ({each}), whose RabbitMQ can't work together. Use one release for all"
        )


def _strange_members(nodes: list[str], found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for host, info in found.items():
        strange = [member for member in info["members"] if member not in nodes]
        if strange:
            words = ", ".join(strange)
            yield (
                f"{host} belongs to a cluster with {words}, and the inventory has no such host. Is it another "
                f"cluster? Then {host} can't be in this one. {shrinking(strange)}"
            )


def _lost_members(found: Mapping[str, Mapping[str, Any]], host_of: Mapping[str, str]) -> Iterator[str]:
    told: set[str] = set()
    for host, info in found.items():
        for member in info["members"]:
            blank = member in host_of and not found[host_of[member]]["members"]
            if blank and member not in told:
                told.add(member)
                yield (
                    f"{host_of[member]} holds no data, and its cluster still has {member} as a member. It can join "
                    "again as "
                    f"a new node after this, typed on {host} while all other members run: rabbitmqctl "
                    f"forget_cluster_node {member}"
                )


def _several_clusters(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    clusters: list[set[str]] = []
    for members in (set(info["members"]) for info in found.values() if info["members"]):
        joined = [one for one in clusters if one & members]
        clusters = [one for one in clusters if one not in joined] + [members.union(*joined)]
    if len(clusters) > 1:
        each = "; ".join(", ".join(sorted(one)) for one in clusters)
        yield (
            f"There are {len(clusters)} brokers or clusters with data of their own: {each}. RabbitMQ can't merge "
            "them: a "
            "node that joins loses its data. Keep one of them in group rabbitmq; use the others as long as they have "
            "tasks, "
            "then purge them (uninstall.yml) and add their hosts"
        )


def _blank_hosts_alone(nodes: list[str], found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    blank = [host for host, info in found.items() if not info["members"]]
    missing = [node for node in nodes if node not in {info["node"] for info in found.values()}]
    if blank and missing:
        yield (
            f"{', '.join(blank)} would become a member, and this run leaves out {', '.join(missing)}. Run it for all "
            "hosts "
            "of group rabbitmq, without --limit"
        )


def _other_distribution(nodes: list[str], found: Mapping[str, Mapping[str, Any]], tls: bool) -> Iterator[str]:
    """A node with TLS and one without can't talk: a cluster changes that while none of its nodes runs."""
    is_whole = set(nodes) <= {info["node"] for info in found.values()}
    differing = [
        host
        for host, info in found.items()
        if len(info["members"]) > 1 and info["tls"] != tls and (info["runs"] or not is_whole)
    ]
    if differing:
        now, then = ("in clear text", "TLS") if tls else ("TLS", "in clear text")
        yield (
            f"The nodes of the cluster speak {now} with each other ({', '.join(differing)}), and are to speak {then}. "
            "They can't change that one by one. To keep it, write in the variables of all of them: "
            f"rabbitmq_distribution_tls: {str(not tls).lower()}. To change it, stop the whole cluster, typing on each "
            "of its hosts: systemctl stop rabbitmq-server; then run site.yml for all hosts, which starts it. Until "
            "then nobody can publish"
        )
