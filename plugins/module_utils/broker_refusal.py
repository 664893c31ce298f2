"""A worker that ends because the broker refuses its login, vhost or permissions: told from a crash, by its log."""

from __future__ import annotations

import re
from collections.abc import Iterable

REFUSAL = re.compile(
    r"\(?(?:403|530)\)? (?:ACCESS_REFUSED|NOT_ALLOWED) - (?P<said>Login was refused|vhost .+? not found"
    r"|(?:\w+ )?access to \w+ .+? refused for user '[^']*')"
)
"""RabbitMQ's words, as Celery logs them."""


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
