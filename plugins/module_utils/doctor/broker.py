"""RabbitMQ: its production checklist (rabbitmq.com/docs/production-checklist), users, queues and cluster."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, fail, fine, judge, skip, warn
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import HOUSEKEEPING_QUEUES, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import limited_users, tags_of, user_names

SITE = "ansible-playbook playbooks/site.yml"
MB = 1_000_000
check_broker = partial(check, needs="broker", silent="RabbitMQ does not answer")
"""Decorates a check of a broker that answers; one that does not has one failure, rabbitmq-answers."""


def users(facts: Facts) -> set[str]:
    """Return the names of the application's users that the broker has."""
    return {user["name"] for user in facts.broker.definitions["users"]} & set(user_names(facts.app))


def task_queues(facts: Facts) -> list[dict[str, Any]]:
    """Return the application's queues, without those that Celery and the kit make for themselves."""
    return [queue for queue in facts.broker.queues if not re.fullmatch(HOUSEKEEPING_QUEUES, queue["name"])]


@check("rabbitmq-answers", "broker")
def answers(facts: Facts) -> Finding:
    """RabbitMQ answers its tools."""
    return judge(bool(facts.broker.refused), facts.broker.refused or "it answers", "rabbitmqctl status; " + SITE)


@check_broker("rabbitmq-disk-limit")
def disk_limit(facts: Facts) -> Finding:
    """Publishers are stopped before the disk is full: RabbitMQ's default of 50 MB is too late."""
    limit = int(facts.broker.status["disk_free_limit"])
    fix = f"rabbitmq_disk_free_limit: 1GB, then {SITE} --tags rabbitmq"
    level = "fail" if limit < 200 * MB else "warn"
    return judge(limit < 1000 * MB, f"disk_free_limit is {limit / MB:.0f} MB", fix, level)


@check_broker("rabbitmq-disk-free")
def disk_free(facts: Facts) -> Finding:
    """There is room before that limit."""
    free, limit = int(facts.broker.status["disk_free"]), int(facts.broker.status["disk_free_limit"])
    level = "fail" if free < limit else "warn"
    evidence = f"{free / MB:.0f} MB free, publishers stop at {limit / MB:.0f} MB"
    return judge(free < 2 * limit, evidence, "make room: du -xh -d2 /var/lib/rabbitmq /var/log", level)


@check_broker("rabbitmq-memory-watermark")
def memory_watermark(facts: Facts) -> Finding:
    """The memory at which publishers are stopped leaves room for the rest of the host."""
    setting = facts.broker.status["vm_memory_high_watermark_setting"]
    share = setting.get("relative")
    if share is None:
        return fine(f"absolute: {setting}")
    fix = f"rabbitmq_memory_high_watermark: 0.4, then {SITE} --tags rabbitmq"
    return judge(
        not 0.1 <= share <= 0.7, f"vm_memory_high_watermark is {share}", fix, "fail" if share > 0.9 else "warn"
    )


@check_broker("rabbitmq-memory-used")
def memory_used(facts: Facts) -> Finding:
    """RabbitMQ's memory is well below that."""
    used, limit = facts.broker.status["memory"]["total"]["rss"], facts.broker.status["vm_memory_high_watermark_limit"]
    share = 100 * used / limit
    level = "fail" if share >= 100 else "warn"
    return judge(share > 80, f"{share:.0f} % of the watermark", "rabbitmq-diagnostics memory_breakdown", level)


@check_broker("rabbitmq-file-handles")
def file_handles(facts: Facts) -> Finding:
    """Each connection and queue takes some; production wants 50,000."""
    files = facts.broker.status.get("file_descriptors") or {}
    limit, used = int(files.get("total_limit") or 0), int(files.get("total_used") or 0)
    if not limit:
        return skip("this version does not report it")
    fix = "systemctl edit rabbitmq-server: [Service] LimitNOFILE=65536 (a container: --ulimit nofile=65536)"
    if used > 0.8 * limit:
        return fail(f"{used} of {limit} are used", fix)
    # RabbitMQ leaves some of the process's limit to others.
    return judge(limit < 49_000 and not facts.host.container, f"{used} of {limit} are used", fix, "warn")


@check_broker("rabbitmq-processes")
def processes(facts: Facts) -> Finding:
    """Erlang has processes left."""
    seen = facts.broker.status["processes"]
    share = 100 * seen["used"] / seen["limit"]
    return judge(share > 80, f"{share:.0f} % of Erlang's processes", "rabbitmqctl list_connections: who opens so many?")


@check_broker("rabbitmq-alarms")
def alarms(facts: Facts) -> Finding:
    """No alarm stops the publishers."""
    found = [str(one) for one in (*facts.broker.status["alarms"], *facts.broker.cluster.get("alarms", []))]
    return judge(
        bool(found), ", ".join(found) or "none", "rabbitmq-diagnostics alarms; free the disk or memory it names"
    )


@check_broker("rabbitmq-guest")
def guest(facts: Facts) -> Finding:
    """The user guest, an administrator whose password everybody knows, is gone."""
    there = any(user["name"] == "guest" for user in facts.broker.definitions["users"])
    evidence = (
        "there is none" if not there else "it has the password guest" if facts.broker.guest_is_open else "it is there"
    )
    level = "fail" if facts.broker.guest_is_open else "warn"
    return judge(there, evidence, "rabbitmqctl delete_user guest", level)


@check_broker("rabbitmq-user")
def user(facts: Facts) -> Finding:
    """The application's user is there and administers nothing."""
    mine = [one for one in facts.broker.definitions["users"] if one["name"] in users(facts)]
    if not mine:
        return fail(f"there is no user {facts.app}", f"{SITE} --tags rabbitmq")
    tags = sorted({tag for one in mine for tag in tags_of(one)})
    fix = f"rabbitmqctl set_user_tags {mine[0]['name']}"
    return judge(bool(tags), f"tags: {', '.join(tags) or 'none'}", fix)


@check_broker("rabbitmq-permissions")
def permissions(facts: Facts) -> Finding:
    """The application's users may use its own vhost alone, and nobody else that vhost."""
    mine = users(facts) | set(limited_users(facts.app, facts.broker.definitions))
    wrong = [
        f"{one['user']} in {one['vhost']}"
        for one in facts.broker.definitions["permissions"]
        if (one["user"] in mine) != (one["vhost"] == facts.app) and (one["user"] in mine or one["vhost"] == facts.app)
    ]
    fix = "if nobody needs it: rabbitmqctl clear_permissions --vhost VHOST USER"
    return judge(bool(wrong), ", ".join(wrong) or "its own vhost alone", fix, "warn")


@check_broker("rabbitmq-feature-flags")
def feature_flags(facts: Facts) -> Finding:
    """All stable feature flags are enabled: the next version refuses to start without them."""
    off = sorted(
        one["name"]
        for one in facts.broker.cluster.get("feature_flags", [])
        if one["state"] == "disabled" and one["stability"] in ("stable", "required")
    )
    return judge(
        bool(off), f"disabled: {', '.join(off)}" if off else "all enabled", "rabbitmqctl enable_feature_flag all"
    )


@check_broker("rabbitmq-deprecated")
def deprecated(facts: Facts) -> Finding:
    """Nothing is used that a later version refuses."""
    used = facts.broker.deprecated
    if used is None:
        return skip("this version does not list deprecated features")
    return judge(bool(used), ", ".join(used) or "none used", "rabbitmqctl list_deprecated_features --used", "warn")


@check_broker("rabbitmq-mirrored-queues")
def mirrored(facts: Facts) -> Finding:
    """No policy mirrors classic queues: RabbitMQ 4 has none."""
    found = [
        f"{one['vhost']}/{one['name']}"
        for one in facts.broker.definitions.get("policies", [])
        if "ha-mode" in one["definition"]
    ]
    fix = "use quorum queues (celery_ops.settings), then: rabbitmqctl clear_policy -p VHOST NAME"
    return judge(bool(found), ", ".join(found) or "none", fix, "warn")


@check_broker("rabbitmq-dead-queue")
def dead_queue(facts: Facts) -> Finding:
    """The queue for tasks that no worker could do is there."""
    name = Layout(facts.app).dead_queue
    there = any(queue["name"] == name for queue in facts.broker.queues)
    return judge(
        not there, f"{name} is {'there' if there else 'missing: such tasks would be lost'}", f"{SITE} --tags rabbitmq"
    )


@check_broker("rabbitmq-policy")
def policy(facts: Facts) -> Finding:
    """A policy dead-letters the application's tasks and limits their deliveries."""
    mine = [one for one in facts.broker.definitions.get("policies", []) if one["vhost"] == facts.app]
    there = any({"dead-letter-exchange", "delivery-limit"} <= set(one["definition"]) for one in mine)
    evidence = "dead-letter-exchange and delivery-limit are set" if there else f"no policy of {len(mine)} sets both"
    return judge(not there, evidence, f"{SITE} --tags rabbitmq")


@check_broker("rabbitmq-queue-types")
def queue_types(facts: Facts) -> Finding:
    """Tasks are in quorum queues, which survive a node."""
    classic = sorted(queue["name"] for queue in task_queues(facts) if queue["type"] != "quorum")
    fix = "docs/your-app.md: celery_ops.settings makes quorum queues; an existing queue has to be recreated"
    return judge(bool(classic), f"not quorum: {', '.join(classic)}" if classic else "all quorum", fix, "warn")


@check_broker("rabbitmq-durable")
def durable(facts: Facts) -> Finding:
    """Queues survive a restart of the broker."""
    lost = sorted(queue["name"] for queue in task_queues(facts) if not queue["durable"])
    return judge(
        bool(lost), f"not durable: {', '.join(lost)}" if lost else "all durable", "declare them with durable=True"
    )


@check_broker("rabbitmq-quorum-online")
def quorum_online(facts: Facts) -> Finding:
    """Every quorum queue has all of its members."""
    bad, worse = [], []
    for queue in facts.broker.queues:
        if queue["type"] == "quorum":
            members, online = len(queue["members"] or []), len(queue["online"] or [])
            if online < members:
                (worse if online <= members // 2 else bad).append(f"{queue['name']} ({online} of {members})")
    fix = "rabbitmqctl cluster_status; start the node that is down"
    if worse:
        return fail(f"no majority: {', '.join(worse[:5])}", fix)
    return judge(bool(bad), ", ".join(bad[:5]) or "all members online", fix, "warn")


@check_broker("rabbitmq-quorum-members")
def quorum_members(facts: Facts) -> Finding:
    """Every quorum queue has a member on each node of the cluster."""
    nodes = len(facts.broker.cluster.get("disk_nodes", []))
    few = [
        one["name"]
        for one in facts.broker.queues
        if one["type"] == "quorum" and len(one["members"] or []) < min(nodes, 3)
    ]
    fix = "rabbitmq-queues grow NODE all"
    return judge(
        bool(few), f"{len(few)} queues lack a member: {', '.join(few[:5])}" if few else f"{nodes} nodes", fix, "warn"
    )


@check_broker("rabbitmq-cluster-size")
def cluster_size(facts: Facts) -> Finding:
    """A cluster has an odd number of nodes, and those of the inventory."""
    nodes = facts.broker.cluster.get("disk_nodes", [])
    if len(nodes) != facts.wanted.nodes:
        return fail(
            f"{len(nodes)} nodes, and the inventory has {facts.wanted.nodes}", f"rabbitmqctl cluster_status; {SITE}"
        )
    return judge(
        len(nodes) % 2 == 0, f"{len(nodes)} nodes", "add a host to the group rabbitmq: an odd number has a majority"
    )


@check_broker("rabbitmq-partitions")
def partitions(facts: Facts) -> Finding:
    """The nodes of the cluster see each other."""
    found = facts.broker.cluster.get("partitions") or {}
    fix = "rabbitmqctl cluster_status; on the host of the node that is apart: systemctl restart rabbitmq-server"
    return judge(bool(found), f"{found}" if found else "none", fix)


@check_broker("rabbitmq-maintenance")
def maintenance(facts: Facts) -> Finding:
    """The node is not left in maintenance mode, in which it takes no client."""
    on = bool(facts.broker.status.get("is_under_maintenance"))
    return judge(on, "in maintenance mode" if on else "not in maintenance", "rabbitmq-upgrade revive")


@check_broker("rabbitmq-unlisted-programs")
def unlisted(facts: Facts) -> Finding:
    """No program is connected from a host that the inventory does not have in the program's group."""
    found = [f"{one.program} on {one.host}" for one in facts.broker.unlisted]
    fix = "ansible-playbook playbooks/status.yml names the command for each"
    return judge(bool(found), ", ".join(found) or "none", fix)


@check_broker("rabbitmq-default-vhost")
def default_vhost(facts: Facts) -> Finding:
    """Nobody's queues are in the vhost /, where an application that lost its settings would land."""
    there = [one["name"] for one in facts.broker.definitions.get("queues", []) if one["vhost"] == "/"]
    fix = "find who declares them: rabbitmqctl list_connections user vhost peer_host"
    return judge(bool(there), f"{len(there)} queues in /: {', '.join(there[:5])}" if there else "empty", fix, "warn")


@check_broker("rabbitmq-management-open")
def management(facts: Facts) -> Finding:
    """The management page, which has all rights by a password, is not open to other hosts."""
    return _closed(facts, (15672, 15671), "the management page", "management.tcp.ip = 127.0.0.1")


@check_broker("rabbitmq-plain-listener")
def plain_listener(facts: Facts) -> Finding:
    """Passwords and tasks cross no network unencrypted, unless the inventory wants it so."""
    if not facts.wanted.tls:
        return warn(
            "celery_app_tls is false: passwords and messages cross the network in clear text", "celery_app_tls: true"
        )
    return _closed(facts, (5672,), "AMQP without TLS", f"celery_app_tls: true, then {SITE}")


@check_broker("rabbitmq-erlang-ports")
def erlang_ports(facts: Facts) -> Finding:
    """Erlang's own ports, whose cookie gives all rights, are open to no more hosts than a cluster needs."""
    if facts.wanted.nodes > 1:
        open_to_all = sorted(
            port for address, port in facts.host.listeners if port in (4369, 25672) and address in ("0.0.0.0", "::")
        )
        fix = "rabbitmq_distribution_bind: the host's private address"
        return judge(
            bool(open_to_all), f"on every address: {open_to_all}" if open_to_all else "one address", fix, "warn"
        )
    return _closed(facts, (4369, 25672), "Erlang's distribution", "rabbitmq_distribution_bind: 127.0.0.1")


def _closed(facts: Facts, ports: tuple[int, ...], what: str, fix: str) -> Finding:
    found = sorted(
        f"{address}:{port}"
        for address, port in facts.host.listeners
        if port in ports and not (address.startswith("127.") or address == "::1")
    )
    return judge(bool(found), f"{what} listens on {', '.join(found)}" if found else "loopback alone, or nothing", fix)
