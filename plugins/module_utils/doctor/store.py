"""Redis: persistence, memory, users, replication."""

from __future__ import annotations

from functools import partial

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, judge, skip, warn
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts

SITE = "ansible-playbook playbooks/site.yml --tags result_store"
check_store = partial(check, needs="store", silent="Redis does not answer")
"""Decorates a check of a Redis that answers; one that does not has one failure, redis-answers."""


@check("redis-answers", "store")
def answers(facts: Facts) -> Finding:
    """Redis answers the kit's user."""
    return judge(bool(facts.store.refused), facts.store.refused or "it answers", SITE)


@check_store("redis-persistence")
def persistence(facts: Facts) -> Finding:
    """Results survive a restart."""
    on = facts.store.info.get("aof_enabled") == "1"
    return judge(not on, "append-only file is on" if on else "append-only file is off", SITE)


@check_store("redis-writes")
def writes(facts: Facts) -> Finding:
    """The last writes to the disk succeeded."""
    names = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    bad = [f"{name} is {facts.store.info[name]}" for name in names if facts.store.info.get(name, "ok") != "ok"]
    return judge(bool(bad), ", ".join(bad) or "ok", "tail -n 30 /var/log/redis/redis-server.log; df -h /var/lib/redis")


@check_store("redis-memory-limit")
def memory_limit(facts: Facts) -> Finding:
    """Its memory is bounded."""
    limit = int(facts.store.info.get("maxmemory", 0))
    return judge(not limit, f"maxmemory is {limit // 2**20} MiB" if limit else "maxmemory is not set", SITE)


@check_store("redis-memory-policy")
def memory_policy(facts: Facts) -> Finding:
    """A full Redis drops old results; it does not refuse new ones."""
    policy = facts.store.info.get("maxmemory_policy", "noeviction")
    fix = f"result_store_eviction_policy: volatile-lru, then {SITE}"
    return judge(policy == "noeviction", f"maxmemory-policy is {policy}", fix, "warn")


@check_store("redis-memory-used")
def memory_used(facts: Facts) -> Finding:
    """There is room below that bound."""
    limit = int(facts.store.info.get("maxmemory", 0))
    if not limit:
        return skip("no limit")
    share = 100 * int(facts.store.info["used_memory"]) / limit
    fix = (
        "result_store_max_memory: more, or shorter result_expires, or ignore_result for tasks whose result nobody reads"
    )
    return judge(share > 90, f"{share:.0f} % of maxmemory", fix, "warn")


@check_store("redis-evicted")
def evicted(facts: Facts) -> Finding:
    """No result was dropped before its time for want of memory."""
    number = int(facts.store.info.get("evicted_keys", 0))
    return judge(
        number > 0, f"{number} keys evicted since its start", f"result_store_max_memory: more, then {SITE}", "warn"
    )


@check_store("redis-clients")
def clients(facts: Facts) -> Finding:
    """It has connections left."""
    used, limit = int(facts.store.info["connected_clients"]), int(facts.store.info.get("maxclients", 10000))
    return judge(used > 0.8 * limit, f"{used} of {limit}", "redis-cli client list: who opens so many?", "warn")


@check_store("redis-default-user")
def default_user(facts: Facts) -> Finding:
    """Nobody gets in without a password: the default user is off."""
    lines = [line for line in facts.store.acl.splitlines() if line.startswith("user default ")]
    off = any(" off " in f"{line} " for line in lines)
    return judge(not off, "off" if off else "the default user is on, or no ACL file says that it is off", SITE)


@check_store("redis-plain-listener")
def plain(facts: Facts) -> Finding:
    """Passwords and results cross no network unencrypted, unless the inventory wants it so."""
    if facts.store.tls:
        shown = ", clients show a certificate" if facts.store.conf.get("tls-auth-clients") == "yes" else ""
        return judge(False, f"TLS{shown}", "")
    away = facts.store.conf.get("bind", "127.0.0.1").split()[0]
    is_open = not away.startswith(("127.", "::1"))
    if is_open and not facts.wanted.tls:
        return warn(f"without TLS on {away}: celery_app_tls is false", f"celery_app_tls: true, then {SITE}")
    return judge(is_open, f"without TLS on {away}", f"celery_app_tls: true, then {SITE}")


@check_store("redis-replication")
def replication(facts: Facts) -> Finding:
    """A replica has its primary, and a primary of several has a replica."""
    role, nodes = facts.store.info.get("role", "master"), facts.store.conf.get("min-replicas-to-write", "0")
    if role != "master":
        state = facts.store.info.get("master_link_status", "down")
        return judge(
            state != "up", f"its link to the primary is {state}", "tail /var/log/redis/redis-server.log; docs/fleet.md"
        )
    number = int(facts.store.info.get("connected_slaves", 0))
    return judge(
        number < int(nodes), f"{number} replicas, {nodes} wanted", "start the other hosts' Redis: docs/fleet.md"
    )
