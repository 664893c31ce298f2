"""Redis may be installed, or may be used as it is, with a database for each application."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SYSTEMD
from ansible_collections.celery_ops.kit.plugins.module_utils.services import debian, redis


def in_use(instance: str) -> Iterator[str]:
    """A Redis that the kit did not install serves nobody else, or is left as it is."""
    was_there = debian.was_there_before("result_store")
    if instance and not was_there:
        yield "result_store_instance is set, and the host has no Redis of its own. Write: result_store_instance: ''"
    elif instance and not SYSTEMD.exists():
        yield "result_store_instance is set, and needs systemd. Use another host in group result_store"
    if instance or not was_there or redis.is_configured():
        return
    found = redis.signs_of_use()
    if found:
        yield (
            f"Redis was there before, and is in use ({', '.join(found)}): the kit would change its configuration and "
            "users and restart it. Write: result_store_instance: celery_ops and result_store_port: 6380 (a Redis of "
            "the kit's own beside it), or use another host in group result_store"
        )


def database(app: str, number: int, is_set: bool, users: dict[str, str]) -> Iterator[str]:
    """Each application has a database of the result store to itself."""
    variable = "celery_app_result_store_database"
    taken = {name: redis.database_of(rules) for name, rules in users.items() if name != app}
    free = next((each for each in range(1, 16) if each not in taken.values()), 0)
    if app in users and "+select|" not in users[app] and not is_set:
        yield (
            f"{variable} is not set, and the results of {app} are in database 0, as the version before had it. "
            f"Write: {variable}: {free} (results stored so far are no longer found; they expire within a day)"
            + ("" if taken else f", or {variable}: 0, to keep them there while {app} is alone in that Redis")
        )
    elif number == 0 and taken:
        yield (
            f"{variable} is 0, which every connection to Redis begins in, and {', '.join(sorted(taken))} uses the same "
            f"Redis. Write: {variable}: {free}"
        )
    elif sharing := [name for name, theirs in sorted(taken.items()) if theirs == number]:
        yield f"{variable} is {number}: {', '.join(sharing)} has that one in the same Redis. Write: {variable}: {free}"
    elif app not in users and (open_ := [name for name, theirs in sorted(taken.items()) if theirs == 0]):
        yield (
            f"{', '.join(open_)} keeps its results in database 0 of the same Redis, where {app} could read them. First "
            f"write for {open_[0]}: {variable}: {free}, and type: ansible-playbook playbooks/site.yml"
        )


def member(primary: str, address: str) -> Iterator[str]:
    """A host that becomes a replica has nothing that the primary's results would replace, and runs systemd."""
    if not SYSTEMD.exists():
        yield "celery_app_result_store_sentinel is true, and needs systemd. Use other hosts in group result_store"
    if debian.was_there_before("result_store"):
        yield (
            "celery_app_result_store_sentinel is true, and this host had a Redis before the kit, which the primary's "
            "results would replace. Use another host in group result_store"
        )
    elif others := redis.watched_by_others():
        yield (
            f"celery_app_result_store_sentinel is true, and the Sentinel of this host watches {', '.join(others)} for "
            "somebody else; its configuration would be replaced. Use another host in group result_store"
        )
    elif address != primary and not redis.is_sentinel_configured() and (at := redis.listens_at()):
        held = 0
        with contextlib.suppress(OperatorError):  # one that does not run is asked again before it becomes a replica
            held = redis.held(at)
        if held:
            yield (
                f"This host holds results ({held} keys), and those of {primary} would replace them. Write its host "
                "first in group result_store; it becomes the primary"
            )
