"""A worker that the broker keeps from its work: told from a crash.

It refuses the login, the vhost or a permission, as the worker's log says; or it can't be reached or takes nothing, as
the worker's ready command says (runtime/celery_ops/probe.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

REFUSAL = re.compile(
    r"\(?(?:403|530)\)? (?:ACCESS_REFUSED|NOT_ALLOWED) - (?P<said>Login was refused|vhost .+? not found"
    r"|(?:\w+ )?access to \w+ .+? refused for user '[^']*')"
)
"""RabbitMQ's words, as Celery logs them."""
UNREACHED = re.compile(
    r"its ready command says: (?:broker \S+(?:, \S+)* (?:can't be reached:|accepts connections but takes no messages)"
    r"|the connection to the broker was lost)"
)


def refused_by_broker(log: Iterable[str]) -> str:
    """Return what a log says of a broker that refuses the application, and what to look at; "" for nothing."""
    found = next((match for line in reversed(list(log)) if (match := REFUSAL.search(line))), None)
    if found is None:
        return ""
    return (
        f"The broker refuses the application ({found['said']}); the release is not at fault. With the kit's own "
        "broker, type: ansible-playbook playbooks/site.yml. With a broker of your own, correct celery_app_broker_url: "
        "user, password (special characters encoded, @ as %40, / as %2F) and vhost (/shop is written /%2Fshop), or "
        "the user's permissions (look: rabbitmqctl list_user_permissions <user>)."
    )


def unreached_broker(seen: str) -> str:
    """Return what is to be done about a broker that can't be reached, by why a program is not ready; "" for nothing."""
    if not UNREACHED.search(seen):
        return ""
    return (
        "The release is not at fault. Start the broker (on its host: service rabbitmq-server start), or correct the "
        "address in the inventory; what is wrong with it, this shows: ansible-playbook playbooks/status.yml. Then "
        "deploy again."
    )
