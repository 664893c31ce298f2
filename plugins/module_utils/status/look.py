"""Look at an application on this host: programs, queues, lock, deploys. Nothing is changed, and no secret is read."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.system import Distribution
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    CONTROL_QUEUE,
    HOUSEKEEPING_QUEUES,
    Layout,
    Release,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services import (
    rabbitmq_cluster,
    rabbitmq_move,
    rabbitmq_versions,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import rows_of
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import Versions
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import ProcessInfo

SILENT = 15.0
"""Seconds after which the watchdog's heartbeat is too old to be believed."""

WATCHDOG = ("watchdog", "watch")
"""The kind in the watchdog's heartbeat; the second one in a release that version 0.1 built."""

CERTIFICATES = ("/etc/rabbitmq/tls/cert.pem", "/etc/redis/celery-ops-tls/cert.pem")
"""Those of broker and result store, where the roles install them."""

KIT_COMMAND = "/bin/celery-ops-"

ENTRIES = 3
"""Lines of the audit log that are shown."""

RELEASE = re.compile(r"/releases/([^/\s]+)/")


@dataclass(frozen=True)
class UnlistedWorker:
    """A worker of the kit that consumes from a host that is not in the group worker."""

    program: str
    host: str
    """What the inventory called the host when the worker was deployed."""
    connection: str
    """The address that it connects from."""


@dataclass
class Status:
    """All that was seen of an application on the host."""

    app: str
    host: str = ""
    name: str = ""
    """What the inventory calls the host."""
    release: str = ""
    since: float = 0.0
    """When the current release became that, as Unix time."""
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)
    orphans: list[dict[str, Any]] = field(default_factory=list)
    watched: bool = True
    """Whether the watchdog responds, where one belongs."""
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    broker: Versions = field(default_factory=Versions)
    """RabbitMQ on this host, where one belongs."""
    moves_from: str = ""
    """The host whose broker the application is moved from to this one, until that is confirmed."""
    lock: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    deploys: list[dict[str, Any]] = field(default_factory=list)
    draft: dict[str, Any] = field(default_factory=dict)
    unsafe: list[dict[str, Any]] = field(default_factory=list)
    """Settings of the current release that can lose tasks, as its inspection reported them."""
    unlisted: list[UnlistedWorker] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    """The hosts of the kit's groups in the inventory, where the broker is on this host."""
    consumed: set[str] = field(default_factory=set)
    """Queues that the worker programs of this host consume from."""
    cluster: dict[str, str] = field(default_factory=dict)
    """By node of the broker's cluster whether it is running, down or missing; empty for a broker that is alone."""
    cluster_faults: list[str] = field(default_factory=list)
    """What differs from a cluster of the inventory's hosts that all run, and its alarms."""
    unseen: str = ""
    """What can't be seen of the broker."""
    certificates: dict[str, float] = field(default_factory=dict)
    """The end of each certificate on this host, as Unix time, by its file."""
    rotation: bool = False
    """Whether a rotation of passwords was not completed."""
    refused: list[str] = field(default_factory=list)
    """What could not be looked at, with what to do."""


def look(app: str, host: str) -> Status:
    """Return what the files of the host tell."""
    layout, deployments = Layout(app), Deployments(app)
    seen = Status(app, host)
    with suppress(OSError):
        seen.release, seen.since = layout.current.readlink().name, layout.current.lstat().st_mtime
    seen.unsafe = read_json(Release(layout.current).state_file).get("inspect", {}).get("unsafe", [])
    seen.lock = host_work.lease_of(host_work.RUN / app)
    seen.work = host_work.worker_of(host_work.RUN / app) or {}
    seen.deploys = deployments.last(ENTRIES)
    seen.certificates = ends_of([*CERTIFICATES, str(layout.tls_ca)])
    seen.draft = {key: value for key, value in deployments.draft().items() if key != "programs"}
    return seen


def ends_of(files: list[str]) -> dict[str, float]:
    """Return when certificates end, by their files; without those that are not there or hold something else."""
    found = {}
    for file in files:
        with suppress(OSError, ValueError, KeyError):
            # The only thing in Python's own library that reads a certificate without a connection.
            found[file] = float(ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(file)["notAfter"]))
    return found


def look_at_programs(seen: Status, conf: Path) -> None:
    """Add what Supervisor, the watchdog and the heartbeats tell."""
    layout, processes = Layout(seen.app), {}
    if conf.exists():
        try:
            processes = connect(conf, 0).processes()
        except OperatorError as error:
            seen.refused.append(str(error))
    else:
        seen.refused.append("Supervisor is not installed. Install it: ansible-playbook playbooks/site.yml")
    watchdog, itself = {}, ""
    for name, process in sorted(processes.items()):
        if not name.startswith(f"{seen.app}-"):
            continue
        seen.programs[name] = _program(layout, name, process)
        beat = read_json(layout.heartbeat(name))
        if not beat or beat.get("pid") != process.pid:
            continue
        if beat.get("kind") in WATCHDOG and time.monotonic() - beat["beat"] < SILENT:
            watchdog, itself = beat, name
        elif beat.get("kind") == "worker":
            seen.consumed |= set(beat["queues"])
            queues = ", ".join(sorted(beat["queues"])) or "no queue"
            seen.programs[name]["tasks"] = f"{queues} ({beat['active']}/{beat['slots']} busy)"
    # A host with nothing but the web program has no watchdog.
    seen.watched = bool(watchdog) or not any("-worker-" in name or "-scheduler-" in name for name in seen.programs)
    seen.orphans = watchdog.get("orphans", [])
    for name, assessment in watchdog.get("programs", {}).items():
        if name != itself and seen.programs.get(name, {}).get("pid") == assessment["pid"]:
            seen.programs[name].update(health=assessment["state"], why=assessment["why"])


def _program(layout: Layout, name: str, process: ProcessInfo) -> dict[str, Any]:
    conf, release = layout.conf(name), ""
    with suppress(OSError):
        if named := RELEASE.search(conf.read_text()):  # none for the listener
            release = named[1]
    return {
        "state": process.state,
        "pid": process.pid,
        "uptime": process.uptime if process.pid else 0,
        "release": release,
        "health": "",
        "why": "",
        "tasks": "",
        "retires": conf.is_symlink(),
    }


def look_at_versions(seen: Status) -> None:
    """Add which RabbitMQ this host has, which one apt would make of it, and a move to it that is under way."""
    seen.moves_from = rabbitmq_move.noted(seen.app).get("from", "")
    found = rabbitmq_versions.nodes()
    seen.broker = rabbitmq_versions.versions(found[0] if len(found) == 1 else "", Distribution.read().version)


def look_at_queues(seen: Status) -> None:
    """Add what the broker on this host has in the application's vhost."""
    command = ("rabbitmqctl", "-q", "-t", "15", "list_queues", "-p", seen.app, "name", "messages", "consumers")
    try:
        done = subprocess.run((*command, "--formatter", "json"), capture_output=True, text=True, timeout=30)
        queues = json.loads(done.stdout)
    except FileNotFoundError:
        seen.refused.append("RabbitMQ is not installed. Install it: ansible-playbook playbooks/site.yml")
        return
    except (OSError, ValueError, subprocess.TimeoutExpired):
        seen.refused.append("RabbitMQ does not list its queues. Look: rabbitmqctl status")
        return
    for queue in queues:
        if not re.fullmatch(HOUSEKEEPING_QUEUES, queue["name"]):
            seen.queues[queue["name"]] = {key: int(queue[key] or 0) for key in ("messages", "consumers")}


def look_at_workers(seen: Status, groups: dict[str, list[str]]) -> None:
    """Add the workers that consume at the broker on this host, and whose host is not in the group worker."""
    seen.groups = groups
    if not seen.queues:  # it does not answer, or was never set up
        return
    try:
        found = unlisted_workers(
            rows_of("list_consumers", "queue_name", "channel_pid", vhost=seen.app), seen.app, groups
        )
        channels = rows_of("list_channels", "pid", "connection") if found else []
        connections = rows_of("list_connections", "pid", "name") if found else []
    except OperatorError as why:
        seen.refused.append(f"RabbitMQ does not tell who consumes. {why}")
        return
    peers = {row["pid"]: str(row["name"]).partition(" ")[0] for row in connections}
    places = {row["pid"]: peers.get(row["connection"], "") for row in channels}
    seen.unlisted = [UnlistedWorker(program, host, places.get(channel, "")) for program, host, channel in found]


def unlisted_workers(
    consumers: Iterable[dict[str, Any]], app: str, groups: dict[str, list[str]]
) -> list[tuple[str, str, str]]:
    """Return program, host and channel of the kit's workers among these consumers that are not of the group's hosts."""
    found = ((CONTROL_QUEUE.fullmatch(row["queue_name"]), str(row["channel_pid"])) for row in consumers)
    return sorted(
        (queue["program"], queue["host"], channel)
        for queue, channel in found
        if queue and queue["program"].startswith(f"{app}-worker-") and queue["host"] not in groups.get("worker", [])
    )


def look_at_cluster(seen: Status, nodes: list[str]) -> None:
    """Add what this host's node says of the cluster that is to have these nodes."""
    try:
        state = rabbitmq_cluster.state()
    except OperatorError as why:
        seen.refused.append(f"RabbitMQ does not tell its cluster's state ({why}). Look: rabbitmqctl cluster_status")
        return
    for node in sorted({*nodes, *state.members}):
        seen.cluster[node] = "running" if node in state.running else "down" if node in state.members else "missing"
    seen.cluster_faults = [*state.faults(nodes), *(f"alarm: {alarm}" for alarm in state.alarms)]


def ask_for_queues(seen: Status, command: list[str]) -> None:
    """Add what a foreign broker tells of the queues that are known here, when `command` asks it."""
    dead = Layout(seen.app).dead_queue
    seen.unseen = "celery_app_broker_url is no host of the kit's: its alarms, and other queues, can't be seen here"
    if not seen.release:
        seen.unseen += "; nor any queue, before the first deploy"
        return
    release = Release(Layout(seen.app).current)
    command = [str(release.command_here(Path(word).name)) if KIT_COMMAND in word else word for word in command]
    if any(KIT_COMMAND in word and not Path(word).exists() for word in command):
        seen.unseen += (
            "; nor any queue: an earlier version of the kit built this release. Deploy: ansible-playbook "
            "playbooks/deploy.yml"
        )
        return
    try:
        done = subprocess.run([*command, *sorted(seen.consumed), dead], capture_output=True, text=True, timeout=90)
        said = json.loads(done.stdout.strip().splitlines()[-1])
        queues, why = said["queues"], said["reason"]
    except (OSError, subprocess.TimeoutExpired) as error:
        queues, why = {}, str(error)
    except (ValueError, LookupError):
        queues, why = {}, f"{Path(command[0]).name} ended with status {done.returncode}"
    if why:
        seen.refused.append(f"The broker can't be asked for its queues: {why}")
        return
    seen.queues = {name: counts for name, counts in queues.items() if counts is not None}
    if dead not in seen.queues:
        seen.unseen += f"; it has no queue {dead}, so that tasks no worker could do are lost: docs/dead-letters.md"
