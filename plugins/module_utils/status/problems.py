"""What is wrong with an application on this host, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import deploy_lease, host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import FULL_SHARE
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    APP_GROUPS,
    CERTIFICATE_DAYS,
    LEASE_TIMEOUT,
    Layout,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.status import flower
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status

STORE_FULL = 0.9
"""The share of the result store's memory from which on it is a problem."""

DOES = {"worker": "takes tasks", "scheduler": "schedules tasks", "web": "is connected"}
"""By group, what a program does that is connected to the broker."""

UNHEALTHY = frozenset({"frozen", "stuck", "deaf", "broker away", "reconnecting", "overdue"})
"""What the watchdog may report of a program that an operator should know (docs/watchdog.md)."""


def problems(seen: Status, *, has_programs: bool) -> list[str]:
    """Return a line for each thing that is wrong, with what to do; `has_programs`: whether programs belong here."""
    return [
        *_broker(seen),
        *seen.refused,
        *_release(seen, has_programs),
        *(line for name, program in seen.programs.items() for line in _program(seen, name, program)),
        *_watchdog(seen),
        *_flower(seen),
        *_disks(seen),
        *_cluster(seen),
        *_store(seen),
        *_queues(seen),
        *_unlisted(seen),
        *_deploys(seen),
        *_rotation(seen),
        *_certificates(seen),
    ]


def _broker(seen: Status) -> Iterator[str]:
    if seen.broker.cannot_start:
        yield f"{seen.broker.cannot_start}. What to do: ansible-playbook playbooks/site.yml"
    elif seen.broker.cannot_upgrade:
        yield (
            f"{seen.broker.cannot_upgrade}. Keep it: apt-mark hold rabbitmq-server. Then move {seen.app} to another "
            f"broker: {move(seen)}"
        )
    if seen.moves_from:
        yield (
            f"{seen.app} is being moved to this broker from {seen.moves_from}, where tasks may be left. Complete it: "
            f"{move(seen, seen.moves_from)}"
        )


def notes(seen: Status) -> Iterator[str]:
    """Yield what is in order now, and is to be known before something else is done."""
    if seen.broker.before_next_debian:
        yield f"{seen.broker.before_next_debian}. Before that upgrade, move {seen.app} to another broker: {move(seen)}"


def move(seen: Status, source: str = "") -> str:
    """Return the command that moves the application from this host's broker, or another's, to the inventory's."""
    return f"ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from={source or seen.name or seen.host}"


def _release(seen: Status, has_programs: bool) -> Iterator[str]:
    if seen.release or not has_programs:
        return
    if running := sorted({program["release"] for program in seen.programs.values()} - {""}):
        yield (
            f"Programs of release {' and '.join(running)} run here, and no deploy of {seen.app} was completed. "
            "Deploy: ansible-playbook playbooks/deploy.yml"
        )
    else:
        yield f"{seen.app} was not deployed here yet. Deploy: ansible-playbook playbooks/site.yml"


def _program(seen: Status, name: str, program: dict[str, Any]) -> Iterator[str]:
    state, log = program["state"], Layout(seen.app).log_file(name)
    if program.get("retires") and state in ("STOPPED", "EXITED"):
        return  # an old generation that has finished: it is about to be removed, at the latest by the next run
    if state == "STOPPED":
        yield f"{name} was stopped manually. Start it: supervisorctl start {name}"
    elif state in ("FATAL", "UNKNOWN"):
        yield f"{name} is {state}. Look: tail -n 30 {log}; restart it: supervisorctl restart {name}"
    elif state in ("BACKOFF", "EXITED"):
        yield f"{name} exits right after each start, and Supervisor keeps trying. Look: tail -n 30 {log}"
    if program["health"] in UNHEALTHY:
        yield f"{name} is {program['health']}: {program['why']}. What the watchdog does: docs/watchdog.md"
    under_way = seen.lock or seen.work or state == "STOPPING"
    if seen.release and program["release"] not in ("", seen.release) and not under_way:
        yield (
            f"{name} runs release {program['release']}, and the current one is {seen.release}. Deploy: "
            "ansible-playbook playbooks/deploy.yml (or rollback.yml)"
        )


def _watchdog(seen: Status) -> Iterator[str]:
    if not seen.watched:
        yield "The watchdog is not running or not responding. Deploy: ansible-playbook playbooks/deploy.yml"
    for orphan in seen.orphans:
        yield (
            f"pid {orphan['pid']} ({orphan['what']}) is an orphan. The watchdog has told it to finish, and terminates "
            f"it in time. Look: ps -fp {orphan['pid']}"
        )


def _flower(seen: Status) -> Iterator[str]:
    if not seen.flower:
        return
    state, name, log = seen.flower["state"], flower.name_of(seen.app), f"tail -n 30 {flower.log_of(seen.app)}"
    if not state:
        what = "Flower is not installed here, and flower_host is this host"
        yield f"{what}. Install it: ansible-playbook playbooks/site.yml"
    elif state == "STOPPED":
        yield f"{name} was stopped manually. Start it: supervisorctl start {name}"
    elif state not in ("RUNNING", "STARTING"):
        yield f"{name} is {state}. Look: {log}; restart it: supervisorctl restart {name}"
    elif state == "RUNNING" and not seen.flower["answers"]:
        yield f"Flower does not answer at {seen.flower['url']}. Look: {log}; restart it: supervisorctl restart {name}"


def _disks(seen: Status) -> Iterator[str]:
    for one in seen.disks:
        if one.readonly:
            yield f"The file system of {one.path} is read-only: nothing is written there. Look: dmesg | tail -n 50"
        elif one.space >= FULL_SHARE:
            look = f"df -h {one.path}; du -xh -d2 {one.path} | sort -h | tail"
            yield f"The file system of {one.path} is {one.space:.0f} % full. Make room, look: {look}"
        elif one.inodes >= FULL_SHARE:
            look = f"du -x --inodes -d2 {one.path} | sort -n | tail"
            yield f"The file system of {one.path} has {one.inodes:.0f} % of its inodes in use. Look: {look}"


def _cluster(seen: Status) -> Iterator[str]:
    for fault in seen.cluster_faults:
        yield f"The broker's cluster: {fault}. What to do: docs/fleet.md; look: rabbitmqctl cluster_status"

    for alarm in [] if seen.cluster else seen.alarms:  # a cluster's faults name its alarms
        look = {"disk": "df -h /var/lib/rabbitmq", "memory": "rabbitmq-diagnostics memory_breakdown"}
        yield (
            f"The broker has its {alarm['alarm']} alarm on and takes no message, so that nothing is published. Look: "
            f"{look.get(alarm['alarm'], 'rabbitmq-diagnostics alarms')}"
        )


def _store(seen: Status) -> Iterator[str]:
    store = seen.store
    if not store:
        return
    if not store["reachable"]:
        yield f"The result store does not answer ({store['why']}). Start it: service redis-server start"
        return
    for fault in store["faults"]:
        yield f"The result store: {fault}. Look: tail -n 30 /var/log/redis/redis-server.log; df -h /var/lib/redis"
    if store["memory_limit"] and store["memory"] > STORE_FULL * store["memory_limit"]:
        yield (
            f"The result store has used {100 * store['memory'] // store['memory_limit']} % of its memory. Raise "
            "result_store_max_memory, or let results expire sooner (result_expires)"
        )


def _queues(seen: Status) -> Iterator[str]:
    dead = Layout(seen.app).dead_queue
    paused = {queue for program in seen.programs.values() for queue in program.get("paused", [])}
    for name, queue in sorted(seen.queues.items()):
        if queue.get("state") == "down":
            yield (
                f"The queue {name} has no leader: its tasks wait, and none is accepted. Start the nodes that are down; "
                "look: rabbitmqctl cluster_status"
            )
        elif name == dead and queue["messages"]:
            listed = "List them: ansible-playbook playbooks/dead_letters.yml"
            yield f"{queue['messages']} dead-lettered tasks{reasons(queue)}. {listed}"
        elif name != dead and queue["messages"] and not queue["consumers"] and name not in paused:
            yield f"{unconsumed(name)} where {queue['messages']} tasks wait. Look: supervisorctl status"


def reasons(queue: dict[str, Any]) -> str:
    """Return why the tasks of the dead queue died, as far as they were looked at."""
    found = queue.get("reasons") or {}
    looked = sum(found.values())
    first = f"of the first {looked}: " if looked < queue["messages"] else ""
    return f" ({first}{', '.join(f'{count} {reason}' for reason, count in found.items())})" if found else ""


def unconsumed(queue: str) -> str:
    """Return how the problem of a queue without a consumer begins, which is none where the queue is paused."""
    return f"Nothing consumes from {queue},"


def _unlisted(seen: Status) -> Iterator[str]:
    in_kit = {host for hosts in seen.groups.values() for host in hosts}
    in_app = {host for group, hosts in seen.groups.items() if group in APP_GROUPS for host in hosts}
    for one in seen.unlisted:
        remove = f"ansible-playbook playbooks/uninstall.yml --limit {one.host}"
        if one.host in in_app:
            where, what = f"the group {one.group}", "Remove it: ansible-playbook playbooks/site.yml"
        elif one.host in in_kit:
            where, what = "the groups worker, scheduler and web", f"Remove {seen.app} from it: {remove}"
        else:
            where = "the inventory's groups"
            what = (
                f"Write {one.host} into the group {one.group} again and type: {remove}; or type on it: supervisorctl "
                f"stop {one.program}"
            )
        place = f" (connected from {one.connection})" if one.connection else ""
        yield f"{one.program} on {one.host}{place} {DOES[one.group]}, and {one.host} is not in {where}. {what}"


def _deploys(seen: Status) -> Iterator[str]:
    stale = seen.lock and deploy_lease.age(seen.lock) > LEASE_TIMEOUT
    if seen.work and (stale or seen.lock.get("id") != seen.work.get("run")):
        yield (
            f"The work of an interrupted run goes on: {host_work.words(seen.work)}, pid {seen.work.get('pid')}. It "
            "ends by itself, and the next deploy or rollback takes over"
        )
    if seen.draft.get("begun") and not seen.lock and not seen.work:
        what, who, phase = (seen.draft.get(key) for key in ("action", "who", "phase"))
        ended = "failed and was left as it is" if seen.draft.get("failed") else f"was interrupted in phase {phase}"
        yield (
            f"The {what} of {who} to release {seen.draft.get('release')} {ended}. Complete it: "
            "ansible-playbook playbooks/deploy.yml; or roll back: ansible-playbook playbooks/rollback.yml"
        )
    if any(one["by"] == "deploy" for one in seen.paused) and not seen.lock and not seen.work:
        yield (
            f"A deploy that was interrupted has left {seen.app} closed: no task is taken, and the web answers 503. "
            "Complete it: ansible-playbook playbooks/deploy.yml -e celery_app_deploy=stop; or open: ansible-playbook "
            "playbooks/maintenance.yml -e celery_app_maintenance=off"
        )
    if stale:
        yield (
            "The deploy lock belongs to a run that has died, and the next one takes it over. Release it now: "
            "ansible-playbook playbooks/unlock.yml"
        )


def _rotation(seen: Status) -> Iterator[str]:
    if seen.rotation and not seen.lock:
        yield (
            "A rotation of passwords was interrupted: the old ones are still valid. Complete it: "
            "ansible-playbook playbooks/rotate_secrets.yml"
        )


def _certificates(seen: Status) -> Iterator[str]:
    for file, end in seen.certificates.items():
        days = int((end - time.time()) // 86400)
        if days < CERTIFICATE_DAYS:
            when = f"ends in {days} days" if days >= 0 else "has ended"
            renew = "Renew it (in celery_app_tls_directory, where it is your own): ansible-playbook playbooks/site.yml"
            yield f"The certificate {file} {when}. {renew}"
