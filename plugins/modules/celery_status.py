#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: how an application is on this host, as a table, and what isn't right with what to type."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_rpc import (
    Endpoint,
    Process,
    Supervisord,
    Trouble,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: celery_status
short_description: How a Celery application is on this host
description:
  - Looks only. Shows release, programs with their state in Supervisor and what the watch says of them, orphans,
    queues, deploy lock and the last deploy; and says what isn't right, with the command to type.
  - Shows no secret - neither environments nor messages are read.
options:
  app:
    description: The application's name.
    type: str
    required: true
  programs:
    description: Whether this host runs programs of the application.
    type: bool
    default: true
  broker:
    description: Whether this host is the broker, so that queues can be looked at.
    type: bool
    default: false
  ask_broker:
    description:
      - A command that asks a broker which is no host of the kit's; the names of queues are appended. Empty where the
        broker is.
    type: list
    elements: str
    default: []
  supervisord_conf:
    description: The configuration of supervisord, which says where it listens.
    type: path
    default: /etc/supervisor/supervisord.conf
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway.
author:
  - celery-ops (@celery-ops)
"""

EXAMPLES = r"""
- name: Look
  celery_status:
    app: petct
    broker: "{{ 'rabbitmq' in group_names }}"
  register: looked
"""

RETURN = r"""
lines: {description: All of it for people; a table and what isn't right., type: list, elements: str, returned: always}
wrong: {description: What isn't right, a sentence each., type: list, elements: str, returned: always}
release: {description: The current release, empty where there is none., type: str, returned: always}
programs:
  description: By name - C(state), C(pid), C(uptime) in seconds, C(release), C(health), C(why), and C(tasks) of workers.
  type: dict
  returned: always
orphans: {description: "The watch's orphans: pid, what, seconds.", type: list, elements: dict, returned: always}
queues: {description: By name - C(messages) and C(consumers)., type: dict, returned: always}
lock: {description: Who holds the deploy lock; empty when nobody does., type: dict, returned: always}
work:
  description: "The process that works on this host for a run: C(what), C(who), C(phase), C(since), C(pid)."
  type: dict
  returned: always
deploys: {description: "The last entries of deploys.log, newest first.", type: list, elements: dict, returned: always}
unsafe:
  description: "The application's settings that can lose tasks: C(setting), C(value), and the line to C(write)."
  type: list
  elements: dict
  returned: always
draft:
  description: "The deploy or rollback that is under way, or was interrupted: C(id), C(action), C(who), C(phase)."
  type: dict
  returned: always
"""

SICK = frozenset({"frozen", "stuck", "deaf", "broker away", "reconnecting", "overdue"})
"""What the watch may say of a program that an operator should know (docs/operations.md)."""

SILENT = 15.0
"""Seconds after which the watch's heartbeat is too old to be believed."""

INTERNAL = re.compile(r"celery_delayed_|celery-ops\.(?:canary|echo)\.|celeryev\.|.*\.pidbox$|.*\.reply\.")
"""Queues that Celery and the kit make for themselves."""


SRV = "/srv"
"""Where releases are."""

ENTRIES = 3
"""Lines of deploys.log that are shown."""


@dataclass
class Found:
    """All that was seen on the host."""

    app: str
    host: str = ""
    release: str = ""
    since: float = 0.0
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)
    orphans: list[dict[str, Any]] = field(default_factory=list)
    watched: bool = True
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    deploys: list[dict[str, Any]] = field(default_factory=list)
    draft: dict[str, Any] = field(default_factory=dict)
    unsafe: list[dict[str, Any]] = field(default_factory=list)
    """Settings of the current release that can lose tasks, see runtime/celery_ops/inspect.py."""
    consumed: set[str] = field(default_factory=set)
    """Queues that the worker programs of this host consume from."""
    unseen: str = ""
    """What can't be seen of the broker."""
    trouble: list[str] = field(default_factory=list)
    """What could not be looked at, with what to type."""


def look(found: Found, conf: Path, broker: bool, programs: bool, ask: list[str]) -> None:
    """Fill `found` in from the host."""
    base = Path("/srv", found.app)
    with contextlib.suppress(OSError):
        found.release = (base / "current").readlink().name
        found.since = (base / "current").lstat().st_mtime
    found.unsafe = host_work.read_json(base / "current/release.json").get("inspect", {}).get("unsafe", [])
    found.lock = host_work.lease_of(host_work.RUN / found.app)
    found.work = host_work.worker_of(host_work.RUN / found.app) or {}
    deployments = Deployments(found.app)
    found.deploys = deployments.last(ENTRIES)
    found.draft = {key: value for key, value in deployments.draft().items() if key != "programs"}
    if programs:
        look_at_programs(found, conf)
    if broker:
        look_at_queues(found)
    elif ask:
        ask_for_queues(found, ask)


def look_at_programs(found: Found, conf: Path) -> None:
    """What Supervisor, the watch and the heartbeats say."""
    processes: dict[str, Process] = {}
    try:
        if not conf.exists():
            raise ImportError
        supervisord = Supervisord(Endpoint.from_conf(conf))
        supervisord.await_answer(0)
        processes = supervisord.processes()
    except Trouble as trouble:
        found.trouble.append(str(trouble))
    except ImportError:
        found.trouble.append("Supervisor is not installed; type: ansible-playbook playbooks/site.yml")
    watch: dict[str, Any] = {}
    for name, process in sorted(processes.items()):
        if not name.startswith(f"{found.app}-"):
            continue
        beat = host_work.read_json(Path("/run", found.app, f"{name}.heartbeat"))
        beat = beat if beat.get("pid") == process.pid else {}
        if beat.get("kind") == "watch" and time.monotonic() - beat["beat"] < SILENT:
            watch = beat
        found.programs[name] = {
            **{"state": process.state, "pid": process.pid, "uptime": process.uptime if process.pid else 0},
            **{"release": release_of(name), "health": "", "why": "", "tasks": ""},
            "retires": Path("/etc/supervisor/conf.d", f"{name}.conf").is_symlink(),
        }
        if beat.get("kind") == "worker":
            found.consumed |= set(beat["queues"])
            queues = ", ".join(sorted(beat["queues"])) or "no queue"
            found.programs[name]["tasks"] = f"{queues} ({beat['active']}/{beat['slots']} busy)"
    # A host with nothing but the web program has no watch.
    found.watched = bool(watch) or not any("-worker-" in name or "-scheduler-" in name for name in found.programs)
    found.orphans = watch.get("orphans", [])
    for name, verdict in watch.get("programs", {}).items():
        if found.programs.get(name, {}).get("pid") == verdict["pid"]:
            found.programs[name].update(health=verdict["state"], why=verdict["why"])


def look_at_queues(found: Found) -> None:
    """What the broker has in the application's vhost."""
    command = ("rabbitmqctl", "-q", "-t", "15", "list_queues", "-p", found.app, "name", "messages", "consumers")
    try:
        done = subprocess.run((*command, "--formatter", "json"), capture_output=True, text=True, timeout=30)
        queues = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        found.trouble.append("RabbitMQ does not say what is in its queues; type: rabbitmqctl status")
        return
    for queue in queues:
        if not INTERNAL.match(queue["name"]):
            found.queues[queue["name"]] = {key: int(queue[key] or 0) for key in ("messages", "consumers")}


def ask_for_queues(found: Found, ask: list[str]) -> None:
    """What a broker of somebody else says, over AMQP, of the queues that are known here."""
    dead = f"{found.app}.dead"
    found.unseen = "celery_app_broker_url is no host of the kit's: its alarms, and other queues, can't be seen here"
    if not Path(next(word for word in ask if word.startswith(SRV))).exists():
        found.unseen += "; nor any queue, before the next deploy"
        return
    try:
        done = subprocess.run((*ask, *sorted(found.consumed), dead), capture_output=True, text=True, timeout=90)
        said = json.loads(done.stdout.strip().splitlines()[-1])
        queues, why = said["queues"], said["reason"]
    except (OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
        queues, why = {}, str(error)
    if why:
        found.trouble.append(f"The broker can't be asked for its queues: {why}")
        return
    found.queues = {name: counts for name, counts in queues.items() if counts is not None}
    if dead not in found.queues:
        found.unseen += f"; it has no queue {dead}, so that tasks no worker could do are lost: docs/dead-letters.md"


def release_of(program: str) -> str:
    """The release in a program's conf; empty for one that has none, as the listener."""
    with contextlib.suppress(OSError):
        conf = Path("/etc/supervisor/conf.d", f"{program}.conf").read_text()
        if named := re.search(r"/releases/([^/\s]+)/", conf):
            return named[1]
    return ""


def what_is_wrong(found: Found, programs: bool) -> Iterator[str]:
    """A sentence for each thing that isn't right, with what to type."""
    yield from found.trouble
    running = sorted({program["release"] for program in found.programs.values()} - {""})
    if programs and not found.release and running:
        yield (
            f"Programs of release {' and '.join(running)} run here, and no deploy of {found.app} was completed; "
            "type: ansible-playbook playbooks/deploy.yml"
        )
    elif programs and not found.release:
        yield f"{found.app} was not deployed here yet; type: ansible-playbook playbooks/site.yml"
    for name, program in found.programs.items():
        state, log = program["state"], f"/var/log/{found.app}/{name}.log"
        if program.get("retires") and state in ("STOPPED", "EXITED"):
            pass  # an old generation that has finished: it is about to be removed, at the latest by the next run
        elif state == "STOPPED":
            yield f"{name} is stopped, by somebody; type: supervisorctl start {name}"
        elif state in ("FATAL", "UNKNOWN"):
            yield f"{name} is {state}; look: tail -n 30 {log}, then type: supervisorctl restart {name}"
        elif state in ("BACKOFF", "EXITED"):
            yield f"{name} ends right after each start, Supervisor goes on trying; look: tail -n 30 {log}"
        if program["health"] in SICK:
            yield f"{name} is {program['health']}: {program['why']}; what the watch does: docs/operations.md"
        under_way = found.lock or found.work or state == "STOPPING"
        if found.release and program["release"] not in ("", found.release) and not under_way:
            yield (
                f"{name} runs release {program['release']}, the current one is {found.release}; type: "
                "ansible-playbook playbooks/deploy.yml (or rollback.yml)"
            )
    if not found.watched:
        yield "Nobody watches: the watch is missing or silent; type: ansible-playbook playbooks/deploy.yml"
    for orphan in found.orphans:
        yield (
            f"pid {orphan['pid']} ({orphan['what']}) is an orphan; the watch has told it to finish "
            f"and ends it in time; look: ps -fp {orphan['pid']}"
        )
    for name, queue in sorted(found.queues.items()):
        if name == f"{found.app}.dead" and queue["messages"]:
            yield f"{queue['messages']} dead letters; type: ansible-playbook playbooks/dead_letters.yml"
        elif name != f"{found.app}.dead" and queue["messages"] and not queue["consumers"]:
            yield f"Nobody consumes from {name}, where {queue['messages']} tasks wait; look: supervisorctl status"
    stale = found.lock and host_work.age(found.lock) > host_work.STALE_AFTER
    if found.work and (stale or found.lock.get("id") != found.work.get("run")):
        yield (
            f"The work of an interrupted run goes on: {host_work.words(found.work)}, pid {found.work.get('pid')}; it "
            "ends by itself, and the next deploy or rollback takes over"
        )
    if found.draft.get("begun") and not found.lock and not found.work:
        what, who, phase = (found.draft.get(key) for key in ("action", "who", "phase"))
        ended = "failed and was left as it is" if found.draft.get("failed") else f"was interrupted in phase {phase}"
        yield (
            f"The {what} of {who} to release {found.draft.get('release')} {ended}; to complete it type: "
            "ansible-playbook playbooks/deploy.yml; to go back: ansible-playbook playbooks/rollback.yml"
        )
    if stale:
        yield (
            "The deploy lock is of a run that has died; the next one takes it over, "
            "or type: ansible-playbook playbooks/unlock.yml"
        )


def as_lines(found: Found, wrong: list[str], broker: bool, programs: bool) -> list[str]:
    """All of it for people."""
    lines = []
    if programs:
        since = f", since {_local(found.since)}" if found.release else ""
        lines.append(f"{found.app} on {found.host}: release {found.release or '-'}{since}")
        lines += table(found)
        orphans = [f"pid {one['pid']} ({one['what']}) for {one['seconds']} s" for one in found.orphans]
        lines.append(f"orphans: {', '.join(orphans) or ('none' if found.watched else 'not known, nobody watches')}")
    if broker or found.queues:
        queues = [
            f"{name} {one['messages']}" + (f" ({one['consumers']} consumers)" if one["consumers"] else "")
            for name, one in sorted(found.queues.items())
        ]
        lines.append(f"queues: {', '.join(queues) or 'none'}")
    if found.unseen:
        lines.append(f"broker: {found.unseen}")
    if programs:
        lines += [
            f"unsafe setting: {one['setting']} is {one['value']!r}; write: {one['write']}" for one in found.unsafe
        ]
        held = "{who} for {what} since {at}".format_map({"who": "?", "what": "?", "at": "?", **found.lock})
        lines.append(f"lock: {held if found.lock else 'free'}")
        if found.work:
            lines.append(f"work: {host_work.words(found.work)}")
        lines += [f"{'last' if entry is found.deploys[0] else 'earlier'}: {told(entry)}" for entry in found.deploys]
        lines += [] if found.deploys else ["last: -"]
    return [*lines, *(["NOT RIGHT:", *(f"- {sentence}" for sentence in wrong)] if wrong else ["all is well"])]


def told(entry: dict[str, Any]) -> str:
    """An entry of deploys.log for people."""
    known = {"action": "-", "outcome": "-", "from": "", "to": "", "who": "-", "at": "-", **entry}
    changed = ", ".join(known.get("changed") or [])
    way = f"{known['from'] or 'nothing'} -> {known['to'] or 'nothing'}" + (f" ({changed})" if changed else "")
    return f"{known['action']} {way}: {known['outcome']}, {known['who']}, {known['at']}"


def table(found: Found) -> list[str]:
    """The programs, a line each."""
    rows = [("PROGRAM", "STATE", "PID", "UP", "RELEASE", "HEALTH", "QUEUES")]
    for name, one in found.programs.items():
        up, pid = (_span(one["uptime"]), str(one["pid"])) if one["pid"] else ("-", "-")
        health = "" if "-health-" in name or not one["health"] else one["health"]
        rows.append((name, one["state"], pid, up, one["release"] or "-", health or "-", one["tasks"]))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    return lines if len(rows) > 1 else ["no programs"]


def _span(seconds: int) -> str:
    days, rest = divmod(int(seconds), 86400)
    return (f"{days}d " if days else "") + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"


def _local(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "programs": {"type": "bool", "default": True},
            "broker": {"type": "bool", "default": False},
            "ask_broker": {"type": "list", "elements": "str", "default": []},
            "supervisord_conf": {"type": "path", "default": "/etc/supervisor/supervisord.conf"},
        },
        supports_check_mode=True,
    )
    options = module.params
    found = Found(options["app"], host=socket.gethostname())
    broker = options["broker"] and shutil.which("rabbitmqctl") is not None
    if options["broker"] and not broker:
        found.trouble.append("RabbitMQ is not installed; type: ansible-playbook playbooks/site.yml")
    look(found, Path(options["supervisord_conf"]), broker, options["programs"], options["ask_broker"])
    wrong = list(what_is_wrong(found, options["programs"]))
    module.exit_json(
        changed=False,
        lines=as_lines(found, wrong, broker, options["programs"]),
        wrong=wrong,
        **{key: getattr(found, key) for key in ("release", "programs", "orphans", "queues")},
        **{key: getattr(found, key) for key in ("lock", "work", "deploys", "draft", "unsafe")},
    )


if __name__ == "__main__":
    main()
