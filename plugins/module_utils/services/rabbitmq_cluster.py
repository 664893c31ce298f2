"""A node of a RabbitMQ cluster: what it holds on its disk, and what it says of the cluster. Nothing here changes it."""

from __future__ import annotations

import hashlib
import json
import pwd
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_if_there
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import ERLANG_COOKIE
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import configured_nodes
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import DATA

ENVIRONMENT = Path("/etc/rabbitmq/rabbitmq-env.conf")
POLL = 0.5
"""Seconds between two looks."""
TLS = "inet_tls"
"""What a node with TLS between the nodes is started with (-proto_dist)."""
NODE = re.compile(r"'?([\w-]+@[\w.-]+)'?")

# By node the seconds after which it takes another for gone; the quorum queues that have fewer members than they could.
QUESTION = """
Nodes = lists:usort([node() | nodes()]),
Name = fun(Q) -> {resource, V, queue, N} = amqqueue:get_name(Q), {V, N} end,
On = fun(Q) -> case maps:get(nodes, amqqueue:get_type_state(Q)) of M when is_map(M) -> maps:keys(M); L -> L end end,
Short = [{Name(Q), On(Q)} || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) == rabbit_quorum_queue,
         length(On(Q)) < min(3, length(Nodes))],
Hex = fun(B) -> binary_to_list(binary:encode_hex(B)) end,
Lines = [io_lib:format("tick ~s ~w;", [N, rpc:call(N, net_kernel, get_net_ticktime, [])]) || N <- Nodes] ++
        [io_lib:format("short ~s ~s ~s;", [Hex(V), Hex(N), lists:join(",", [atom_to_list(M) || M <- Ms])])
         || {{V, N}, Ms} <- Short],
lists:flatten(Lines).
"""


@dataclass
class State:
    """What a running node says of its cluster."""

    members: list[str]
    running: list[str]
    apart: list[str] = field(default_factory=list)
    """Nodes on the smaller side of a network partition that did not pause: a cut of some 8 to 20 s ended before they
    had noticed that they were alone."""
    alarms: list[str] = field(default_factory=list)
    disabled_flags: list[str] = field(default_factory=list)
    """Stable feature flags that are not enabled."""

    def faults(self, nodes: list[str]) -> list[str]:
        """Return what differs from a cluster of exactly these nodes, all of them running; empty for nothing."""
        found = [f"{node} is not a member" for node in nodes if node not in self.members]
        found += [f"{node} is a member and not in the inventory" for node in self.members if node not in nodes]
        if not self.apart:  # else one side takes the other for stopped
            found += [f"{node} does not run" for node in self.members if node in nodes and node not in self.running]
        return found + [
            f"network partition: {node} is apart from the others and stays so; type on its host: "
            "systemctl restart rabbitmq-server"
            for node in self.apart
        ]


def shrinking(strange: list[str], to_one: bool = False) -> str:
    """Return how members leave a cluster, which the inventory has no host for. Pure."""
    if to_one:
        return (
            "No node of a cluster can go on alone: of two, the one that is left pauses when the other stops. Write "
            "their hosts into group rabbitmq again; to one broker on another host the application moves: "
            "ansible-playbook playbooks/rabbitmq_move.yml"
        )
    node = strange[0]
    each = "" if len(strange) == 1 else f" for each of {', '.join(strange)}, one after the other,"
    return (
        "To shrink the cluster, write their hosts into group rabbitmq again, and type, while all members "
        f"run,{each} 1. rabbitmq-queues shrink {node} (on any broker; the others keep its queues); 2. on its own host: "
        f"systemctl disable --now rabbitmq-server; 3. on any other broker: rabbitmqctl forget_cluster_node {node} "
        "(this alone where its host is lost for ever). Then take the hosts out of the group"
    )


@dataclass
class Details:
    """By node its net_ticktime; the members of each quorum queue that has too few, by vhost and name."""

    ticktimes: dict[str, int]
    short_queues: dict[tuple[str, str], list[str]]


def ctl(*words: str, program: str = "rabbitmqctl", timeout: int = 60) -> str:
    """Return what a command of RabbitMQ prints. Raises OperatorError with its words."""
    command = ("timeout", "--kill-after=5", str(timeout), program, "--quiet", *words)
    rc, out = run(*command, timeout=timeout + 10)
    if rc:
        said = out.partition("Most common reasons")[0].strip()[-600:] or f"ended with {rc}"
        raise OperatorError(f"{program} {words[0]}: {said}")
    return out


def state() -> State:
    """Return what this host's node says of its cluster. Raises OperatorError while it does not answer."""
    out = ctl("cluster_status", "--formatter", "json")
    return state_of(json.loads(out[out.index("{") :]))


def state_of(said: dict[str, Any]) -> State:
    """Return the state in the answer of `rabbitmqctl cluster_status --formatter json`. Pure."""
    flags = said.get("feature_flags") or []
    off = [one["name"] for one in flags if one.get("state") == "disabled" and one.get("stability") == "stable"]
    members = {*said.get("disk_nodes", []), *said.get("ram_nodes", [])}
    return State(
        members=sorted(members),
        running=sorted(said.get("running_nodes", [])),
        apart=apart(set(said.get("partitions") or {}), members),
        alarms=sorted(alarm_words(each) for each in said.get("alarms") or []),
        disabled_flags=sorted(off),
    )


def apart(seeing: set[str], members: set[str]) -> list[str]:
    """Return the smaller side of a partition, given the nodes that this one runs with and that miss others."""
    is_majority = 2 * len(seeing) > len(members)
    return sorted(members - seeing if is_majority else seeing)


def await_nodes(nodes: list[str], timeout: float, words: Callable[[list[str]], str]) -> State:
    """Return the cluster's state once it is these nodes and all of them run.

    Raises OperatorError at the deadline, with what `words` makes of what is wrong.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = state()
            faults = found.faults(nodes)
        except OperatorError as why:
            faults = [str(why)]
        if not faults:
            return found
        if time.monotonic() >= deadline:
            raise OperatorError(words(faults))
        time.sleep(POLL)


def alarm_words(alarm: Any) -> str:
    """Return an alarm in words."""
    if isinstance(alarm, dict):
        return " ".join(str(alarm[key]) for key in ("node", "resource", "type") if key in alarm)
    return str(alarm)


def details() -> Details:
    """Return what cluster_status does not tell. Raises OperatorError."""
    return details_of(ctl("eval", QUESTION))


def details_of(said: str) -> Details:
    """Return the details in the answer to QUESTION, a string of Erlang's that may be broken into lines. Pure."""
    found = Details({}, {})
    for entry in re.sub(r'"\s*"|\n\s*', "", said).strip().strip('"').split(";"):
        words = entry.split(" ")
        if words[0] == "tick":
            # During a change: {ongoing_change_to,8}
            seconds = re.search(r"\d+", words[2])
            found.ticktimes[words[1]] = int(seconds[0]) if seconds else 0
        elif words[0] == "short":
            vhost, queue = (bytes.fromhex(word).decode() for word in words[1:3])
            found.short_queues[vhost, queue] = [member for member in words[3].split(",") if member]
    return found


def additions(short: dict[tuple[str, str], list[str]], nodes: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Return by node the queues that get a member there, so that each has three. Pure."""
    found: dict[str, list[tuple[str, str]]] = {}
    for queue, members in sorted(short.items()):
        free = [node for node in nodes if node not in members]
        for node in free[: max(0, 3 - len(members))]:
            found.setdefault(node, []).append(queue)
    return found


def grow(node: str, queues: list[tuple[str, str]], timeout: int) -> None:
    """Give quorum queues a member on a node, which gets their messages. Raises OperatorError."""
    for vhost in sorted({vhost for vhost, _ in queues}):
        names = "|".join(re.escape(name).replace("/", r"\/") for each, name in queues if each == vhost)
        words = ("--vhost-pattern", f"^{re.escape(vhost)}$", "--queue-pattern", f"^({names})$", "--errors-only")
        ctl("grow", node, "all", *words, program="rabbitmq-queues", timeout=timeout)


def members_of(node: str, data: Path = DATA) -> list[str]:
    """Return the members of the node's cluster as it last knew them; empty where the host holds no data of it.

    RabbitMQ writes them beside its data, until Khepri holds its metadata: an option since 4.0, the rule for new
    clusters since 4.2, and all there is since 4.3. Then the node says while it runs; of one that does not, what the
    kit has configured.
    """
    if not (data / node).is_dir():
        return []
    if "khepri_db" not in text_if_there(data / f"{node}-feature_flags"):
        return sorted({node, *NODE.findall(text_if_there(data / node / "cluster_nodes.config"))})
    try:
        found = state().members
    except OperatorError:
        found = configured_nodes()
    return found if node in found else [node]


def cookie_is(wanted: str, file: Path = ERLANG_COOKIE) -> str:
    """Return whether the host's cookie is that one: same, other or none."""
    if not file.exists():
        return "none"
    digests = (hashlib.sha256(text.encode()).digest() for text in (file.read_text().strip(), wanted.strip()))
    return "same" if len(set(digests)) == 1 else "other"


def distribution(running: list[str] | None, file: Path = ENVIRONMENT) -> dict[str, bool]:
    """Return whether the broker `runs`, and whether it speaks `tls` with other nodes, or will from its next start.

    `running` is its command line; None where it does not run.
    """
    will = running or (file.read_text().split() if file.exists() else [])
    return {"runs": running is not None, "tls": any(TLS in word for word in will)}


def running_broker() -> list[str] | None:
    """Return the command line of this host's broker; None where it does not run."""
    try:
        user = pwd.getpwnam("rabbitmq").pw_uid
    except KeyError:
        return None
    lines = (proc.words(pid) for pid in proc.of_this_host(user))
    return next((words for words in lines if " ".join(words).find(" -s rabbit boot") > 0), None)
