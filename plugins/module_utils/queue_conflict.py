"""A worker that ends because a queue exists already, declared with other arguments: told from a crash, by its log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

VALUE = "none|'[^']*'|the value '[^']*'"
REFUSAL = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>queue|exchange) '(?P<name>.+?)' in vhost '(?P<vhost>.+?)': "
    rf"received (?P<received>{VALUE})[^:]*? but current is (?P<current>{VALUE})"
)
"""RabbitMQ's words, 406 PRECONDITION_FAILED, as Celery logs them."""


def advice(log: Iterable[str], app: str, old: Iterable[str]) -> str:
    """Return what a log says of such a queue or exchange, and what to type; "" where it says nothing of one.

    `old` are the programs that still consume from it. What is typed goes through the application's own command.
    """
    found = next((match for line in reversed(list(log)) if (match := REFUSAL.search(line))), None)
    if found is None:
        return ""
    kind, name, argument = (found[group] for group in ("kind", "name", "argument"))
    now, wanted = (_value(argument, found[group]) for group in ("current", "received"))
    delete = f"{app} celery amqp {kind}.delete {shlex.quote(name)} "
    told = (
        f"The {kind} {name} (vhost {found['vhost']}) exists with {now}, and the release declares it with {wanted}: "
        "RabbitMQ refuses that (406 PRECONDITION_FAILED), and never changes what exists. Declare it as it is, or give "
        "it another name; or have it declared again: "
    )
    if kind == "exchange":
        return f"{told}on this host type {delete}false; then deploy."
    stop = " ".join(sorted(old))
    return (
        f"{told}stop what sends to it, wait until it is empty (ansible-playbook playbooks/status.yml shows it), stop "
        f"the workers that declare it as it was{f' (supervisorctl stop {stop})' if stop else ''}, and here type "
        f"{delete}false true (it deletes an empty queue only); then deploy."
    )


def _value(argument: str, said: str) -> str:
    value = re.sub(r"^the value ", "", said).strip("'")
    return f"no {argument}" if value == "none" else f"{argument} {value}"
