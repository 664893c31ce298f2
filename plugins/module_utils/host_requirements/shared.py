"""What applications of the kit on one service agree on; else each `site.yml` would change it for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, redis

Users = Callable[[], Iterable[str]]

SERVICES: dict[str, tuple[str, Callable[[], str], Users]] = {
    "rabbitmq": ("RabbitMQ", rabbitmq.bound_to, rabbitmq.applications),
    "result_store": ("Redis", redis.bound_to, redis.acl_users),
}
"""By group: the service, the address that the kit has it listen on ("" for none), the applications that use it."""


def binds(app: str, wanted: dict[str, str]) -> Iterator[str]:
    """No address (by variable) takes away the one on which another application uses the service."""
    for group, (service, bound_to, users) in SERVICES.items():
        variable = f"{group}_bind"
        ours, theirs = wanted.get(variable, ""), bound_to()
        others = others_among(users, app) if ours and theirs and ours != theirs else []
        if others:
            yield (
                f"{variable} is {ours}, and {' and '.join(others)} of this kit, on the same {service}, has {theirs}. "
                f"Write: {variable}: {theirs}, or, to change it for all of them, write {variable}: {ours} in each "
                "inventory and add once: -e preflight_change_shared=true"
            )


def consumer_timeout(app: str, wanted: int) -> int:
    """Return the seconds that the broker has to wait: longer than wanted where another application may need them."""
    theirs = rabbitmq.configured_consumer_timeout()
    if theirs <= wanted or not others_among(SERVICES["rabbitmq"][2], app, ["?"]):
        return wanted
    return theirs


def others_among(users: Users, app: str, unknown: Iterable[str] = ()) -> list[str]:
    """Return the other applications; `unknown` where the service does not run."""
    try:
        return sorted(set(users()) - {app})
    except OperatorError:
        return list(unknown)
