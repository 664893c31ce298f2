"""Look at an application on this host: programs, queues, lock, deploys. Nothing is changed, and no secret is read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work, proc
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import Disk, disks
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import certificate_end, read_json, text_of
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements.system import Distribution
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    CERTIFICATES,
    CONNECTION,
    CONTROL_QUEUE,
    HOUSEKEEPING_QUEUES,
    PROGRAMS_OF,
    Layout,
    Release,
    program_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services import (
    rabbitmq,
    rabbitmq_cluster,
    rabbitmq_move,
    rabbitmq_versions,
    redis,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import rows_of
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import Versions
from ansible_collections.celery_ops.kit.plugins.module_utils.status import broker, flower, metrics
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import is_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import UP, ProcessInfo
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import without_unpack_place

SILENT = 15.0
"""Seconds after which the watchdog's heartbeat is too old to be believed."""

WATCHDOG = ("watchdog", "watch")
"""The kind in the watchdog's heartbeat; the second one in a release that version 0.1 built."""

KIT_COMMAND = "/bin/celery-ops-"

ENTRIES = 20
"""Lines of the audit log that are returned."""

RELEASE = re.compile(r"/releases/([^/\s]+)/")


@dataclass(frozen=True)
class Unlisted:
    """A program of the kit that is connected to the broker from a host that is not in the program's group."""

    program: str
    group: str
    """The group whose hosts run such programs."""
    host: str
    """What the inventory called the host when the program was deployed."""
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
    queues: dict[str, dict[str, Any]] = field(default_factory=dict)
    broker: Versions = field(default_factory=Versions)
    """RabbitMQ on this host, where one belongs."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    """The broker's running nodes: `name`, `memory`, `memory_limit`, `disk_free`, `disk_limit`."""
    alarms: list[dict[str, str]] = field(default_factory=list)
    """The broker's alarms: `node` and `alarm`, which is memory, disk or file_descriptor_limit."""
    store: dict[str, Any] = field(default_factory=dict)
    """The result store on this host, where one belongs."""
    tick: float = 0.0
    """When a worker of this host last ran the scheduler's tick, as Unix time; 0 for unknown."""
    next_due: float = 0.0
    """When the scheduler of this host, if it leads, looks at its schedule next, as Unix time; 0 for unknown."""
    hour: dict[str, Any] = field(default_factory=dict)
    """The last hour of the queues that this host's workers consume from."""
    now: dict[str, dict[str, float]] = field(default_factory=dict)
    """By queue the age of the `oldest` task and the `rate` at which this host's workers finish tasks."""
    scheduled: dict[str, float] = field(default_factory=dict)
    """When the entries of the scheduler of this host last ran, as Unix time, as it last wrote that down."""
    moves_from: str = ""
    """The host whose broker the application is moved from to this one, until that is confirmed."""
    lock: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    deploys: list[dict[str, Any]] = field(default_factory=list)
    draft: dict[str, Any] = field(default_factory=dict)
    paused: list[dict[str, Any]] = field(default_factory=list)
    """What is paused here: `what`, `name`, `since`, `until`, `who`, `why` and, where it was not pause.yml, `by`."""
    flower: dict[str, Any] = field(default_factory=dict)
    """Flower, where the inventory has it on this host: `state`, `pid`, `uptime`, `memory`, `answers`, `url`."""
    unsafe: list[dict[str, Any]] = field(default_factory=list)
    """Settings of the current release that can lose tasks, as its inspection reported them."""
    unlisted: list[Unlisted] = field(default_factory=list)
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
    disks: list[Disk] = field(default_factory=list)
    """The file systems on which application, broker and result store write."""
    rotation: bool = False
    """Whether a rotation of passwords was not completed."""
    refused: list[str] = field(default_factory=list)
    """What could not be looked at, with what to do."""


def pauses(layout: Layout) -> list[dict[str, Any]]:
    """Return what is paused on this host, as pause.yml has noted it; what is over counts for nothing."""
    found = []
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        for one in json.loads(layout.pause.read_text()):
            until = one.get("until")
            if until is None or float(until) > time.time():
                texts = {key: str(one.get(key) or "") for key in ("what", "name", "who", "why", "by")}
                found.append({**texts, "since": float(one["since"]), "until": None if until is None else float(until)})
    return found


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
    seen.certificates = ends_of(map(str, (*CERTIFICATES.values(), layout.tls_ca, layout.tls_client)))
    seen.paused, seen.disks = pauses(layout), disks(app)
    seen.draft = {key: value for key, value in deployments.draft().items() if key != "programs"}
    return seen


def ends_of(files: Iterable[str]) -> dict[str, float]:
    """Return when certificates end, by their files; without those that are not there or hold something else."""
    return {file: end for file in files if (end := certificate_end(file)) is not None}


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
        if not is_of(seen.app, name):
            continue
        seen.programs[name] = _program(layout, name, process)
        beat = read_json(layout.heartbeat(name))
        if not beat or beat.get("pid") != process.pid:
            continue
        if beat.get("kind") in WATCHDOG and time.monotonic() - beat["beat"] < SILENT:
            watchdog, itself = beat, name
        elif beat.get("kind") == "scheduler" and beat.get("state") == "ready":
            seen.next_due = beat["time"] + beat["due"]
        elif beat.get("kind") == "worker":
            seen.consumed |= set(beat["queues"])
            seen.programs[name].update(
                queues=sorted(beat["queues"]),
                paused=sorted(beat.get("paused") or []),
                **{key: beat[key] for key in ("active", "slots", "reserved")},
            )
    # A host with nothing but the web program has no watchdog, nor one whose workers only finish what they have.
    stays = [name for name, one in seen.programs.items() if not one["retires"] or one["state"] in UP]
    seen.watched = bool(watchdog) or not any("-worker-" in name or "-scheduler-" in name for name in stays)
    seen.orphans = watchdog.get("orphans", [])
    for name, assessment in watchdog.get("programs", {}).items():
        if name != itself and seen.programs.get(name, {}).get("pid") == assessment["pid"]:
            seen.programs[name].update(
                health=assessment["state"], why=assessment["why"], restarts=assessment.get("restarts", 0)
            )
    memory = memory_of([program["pid"] for program in seen.programs.values() if program["pid"]])
    for program in seen.programs.values():
        program["memory"] = memory.get(program["pid"], 0)
    seen.scheduled = last_runs(layout)
    seen.hour, seen.now = metrics.last_hour(layout), metrics.now_of(layout)
    for sample, labels, value in metrics.samples(layout):
        if sample == "celery_ops_program_restarts_total":
            for program in seen.programs.values():
                if program["program"] == labels.get("program"):
                    program["restarts"] = int(value)
        elif sample == "celery_ops_tick_timestamp_seconds":
            seen.tick = value


def _program(layout: Layout, name: str, process: ProcessInfo) -> dict[str, Any]:
    conf, release = layout.conf(name), ""
    with suppress(OSError):
        if named := RELEASE.search(text_of(conf)):  # none for the listener
            release = named[1]
    return {
        "state": process.state,
        "pid": process.pid,
        "uptime": process.uptime if process.pid else 0,
        "release": release,
        "program": program_of(name),
        "health": "",
        "why": "",
        "restarts": 0,
        "memory": 0,
        "active": 0,
        "slots": 0,
        "reserved": 0,
        "queues": [],
        "paused": [],
        "retires": conf.is_symlink(),
    }


def memory_of(mains: list[int]) -> dict[int, int]:
    """Return the bytes that each of these processes takes with all it has started, by its pid.

    What a pool's processes share is counted once (proportional set size).
    """
    parents = {found.pid: found.parent for pid in proc.pids() if (found := proc.stat(pid))}
    taken = dict.fromkeys(mains, 0)
    for pid in parents:
        main: int | None = pid
        while main and main not in taken:
            main = parents.get(main)
        if main:
            taken[main] += proc.memory(pid)
    return taken


def look_at_flower(seen: Status, conf: Path) -> None:
    """Add how Flower is, which the inventory has on this host."""
    seen.flower = flower.look(seen.app, conf)
    if pid := seen.flower["pid"]:
        seen.flower["memory"] = memory_of([pid])[pid]


def last_runs(layout: Layout) -> dict[str, float]:
    """Return when beat last sent each entry of its schedule; empty where it writes none down (another scheduler)."""
    found = {}
    for name, run in read_json(layout.state / "beat-schedule.json").items():
        with suppress(ValueError, TypeError, LookupError):
            found[name] = datetime.fromisoformat(run[0]).timestamp()
    return found


def look_at_versions(seen: Status) -> None:
    """Add which RabbitMQ this host has, which one apt would make of it, and a move to it that is under way."""
    seen.moves_from = rabbitmq_move.noted(seen.app).get("from", "")
    found = rabbitmq_versions.nodes()
    seen.broker = rabbitmq_versions.versions(found[0] if len(found) == 1 else "", Distribution.read().version)


def look_at_broker(seen: Status, groups: dict[str, list[str]]) -> None:
    """Add what the broker on this host has in the application's vhost, and programs of hosts not in their groups."""
    seen.groups = groups
    try:
        answer = broker.ask(seen.app, Layout(seen.app).dead_queue)
    except (OperatorError, ValueError):
        installed = shutil.which("rabbitmqctl")
        seen.refused.append(
            "RabbitMQ does not answer. Look: rabbitmqctl status; start it: service rabbitmq-server start"
            if installed
            else "RabbitMQ is not installed. Install it: ansible-playbook playbooks/site.yml"
        )
        return
    seen.nodes, seen.alarms = answer.nodes, answer.alarms
    for queue in answer.queues:
        if not re.fullmatch(HOUSEKEEPING_QUEUES, queue["name"]):
            seen.queues[queue["name"]] = {
                "messages": int(queue.get("messages") or 0),
                "ready": int(queue.get("messages_ready") or 0),
                "unacked": int(queue.get("messages_unacknowledged") or 0),
                "consumers": int(queue.get("consumers") or 0),
                "state": str(queue.get("state") or ""),
            }
    if dead := seen.queues.get(Layout(seen.app).dead_queue):
        dead["reasons"] = dict(Counter(answer.reasons).most_common())
    seen.unlisted = unlisted(answer, seen.app, groups)


def unlisted(answer: broker.Answer, app: str, groups: dict[str, list[str]]) -> list[Unlisted]:
    """Return the kit's programs among the broker's clients that are not of their groups' hosts.

    Programs with the kit's settings name their connections, schedulers with a lease as well; any other worker is known
    by the queue of its control commands.
    """
    found: dict[tuple[str, str, str], str] = {}
    for row in answer.connections:
        for program in _elsewhere(CONNECTION.fullmatch(row["name"]), app, groups):
            found.setdefault(program, row["peer"])
    channels = {
        program: str(row["channel_pid"])
        for row in answer.consumers
        for program in _elsewhere(CONTROL_QUEUE.fullmatch(row["queue_name"]), app, groups)
        if program not in found
    }
    try:
        rows = rows_of("list_channels", "pid", "connection") if channels else []
    except OperatorError:
        rows = []  # they are named without the address
    peers = {row["pid"]: row["peer"] for row in answer.connections}
    places = {row["pid"]: peers.get(row["connection"], "") for row in rows}
    found |= {program: places.get(channel, "") for program, channel in channels.items()}
    return [Unlisted(*program, peer) for program, peer in sorted(found.items())]


def _elsewhere(named: re.Match[str] | None, app: str, groups: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield program, group and host of a name, where the host is not in the group."""
    if not named:
        return
    program, host = named["program"], named["host"]
    for group, names in PROGRAMS_OF.items():
        if program.startswith(tuple(f"{app}-{name}-" for name in names)) and host not in groups.get(group, []):
            yield program, group, host


def node_of_several(data: Path = rabbitmq_versions.DATA) -> list[str]:
    """Return this host's node where the kit's broker is a member of a cluster, whatever the inventory says."""
    held = rabbitmq_versions.nodes(data) if rabbitmq.is_configured() else []
    return [node for node in held if len(rabbitmq_cluster.members_of(node, data)) > 1]


def look_at_cluster(seen: Status, nodes: list[str]) -> None:
    """Add what this host's node says of the cluster that is to have these nodes."""
    try:
        state = rabbitmq_cluster.state()
    except OperatorError as why:
        seen.refused.append(f"RabbitMQ does not report its cluster's state ({why}). Look: rabbitmqctl cluster_status")
        return
    for node in sorted({*nodes, *state.members}):
        seen.cluster[node] = "running" if node in state.running else "down" if node in state.members else "missing"
    seen.cluster_faults = [*state.faults(nodes), *(f"alarm: {alarm}" for alarm in state.alarms)]


def look_at_store(seen: Status) -> None:
    """Add what the Redis on this host tells, where the kit has set it up."""
    try:
        if address := redis.listens_at():
            seen.store = store_of(redis.ask(address, "INFO", user=redis.ADMIN, password=redis.admin_password()))
    except (OperatorError, OSError) as why:
        seen.store = {"reachable": False, "why": str(why)}


def store_of(said: list[str]) -> dict[str, Any]:
    """Return the state in the answer to INFO."""
    info = dict(line.split(":", 1) for line in said if ":" in line)
    # Of what is not used Redis says "ok", too.
    faults = {
        "the last snapshot failed": info.get("rdb_last_bgsave_status", "ok") != "ok",
        "the last write to the append-only file failed": info.get("aof_last_write_status", "ok") != "ok",
        "the last rewrite of the append-only file failed": info.get("aof_last_bgrewrite_status", "ok") != "ok",
        "it has no link to its primary": info.get("master_link_status", "up") != "up",
    }
    return {
        "reachable": True,
        "why": "",
        "version": info.get("redis_version", ""),
        "role": {"master": "primary", "slave": "replica"}.get(info.get("role", ""), info.get("role", "")),
        "memory": int(info.get("used_memory", 0)),
        "memory_limit": int(info.get("maxmemory", 0)),
        "evicted": int(info.get("evicted_keys", 0)),
        "keys": sum(redis.keys_by_database(said).values()),
        "faults": [fault for fault, is_so in faults.items() if is_so],
    }


def ask_for_queues(seen: Status, command: list[str]) -> None:
    """Add what a foreign broker tells of the queues that are known here, when `command` asks it."""
    dead = Layout(seen.app).dead_queue
    seen.unseen = "celery_app_broker_url is not a host of the kit's: its alarms, and other queues, can't be seen here"
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
        done = subprocess.run(
            [*command, *sorted(seen.consumed), dead],
            env=without_unpack_place(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=90,
        )
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
