"""Broker and result store do not change silently: what waits in the ones that are in force would stay there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.celery_ops.kit.plugins.module_utils.environments import BROKER, STORE, is_of_kit, parse
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout

URLS = {"rabbitmq": BROKER, "result_store": STORE}
"""By group: the variable of the application's environment that has its URL, or several."""
LEAVE = "-e preflight_leave_services=true"

Resolve = Callable[[str], set[str]]


def problems(app: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    """Say which of them the inventory would change, and what to type; `wanted` is the input services_in_force.

    Nothing is said before the first deploy, of a service that is somebody else's, or where nothing is wanted.
    """
    with suppress(OSError):
        yield from changed(app, parse(Layout(app).environment_link.read_text()), wanted, addresses_of)


def changed(app: str, environment: Mapping[str, str], wanted: Mapping[str, Any], resolve: Resolve) -> Iterator[str]:
    """Yield what is wrong with each service that is in force by that environment, and is another in the inventory."""
    for group, addresses in wanted.get("addresses", {}).items():
        urls = environment.get(URLS[group], "")
        if not is_of_kit(urls, app):
            continue
        known = {**wanted["hosts"], **dict.fromkeys(("127.0.0.1", "::1", "localhost"), wanted["here"])}
        now, then = ({known.get(each, each): each for each in some} for some in (hosts_of(urls), addresses))
        if is_same(now, then, resolve):
            continue
        if group == "rabbitmq" and wanted["moves_from"] in now:
            continue
        yield (broker if group == "rabbitmq" else store)(now, then, set(wanted["hosts"].values()))


def hosts_of(urls: str) -> list[str]:
    """Return the addresses in a URL, or in several."""
    return [urlsplit(url).hostname or "" for url in urls.split(";")]


def is_same(now: Mapping[str, str], then: Mapping[str, str], resolve: Resolve) -> bool:
    """Tell whether they have a host in common, by name or by address: a cluster that grows or shrinks is the same."""
    if not now.keys().isdisjoint(then):
        return True
    return not _resolved(now.values(), resolve).isdisjoint(_resolved(then.values(), resolve))


def _resolved(addresses: Iterable[str], resolve: Resolve) -> set[str]:
    return {found for address in addresses for found in resolve(address)}


def addresses_of(name: str) -> set[str]:
    """Return the IP addresses that a name has on this host; none for a name that has none."""
    with suppress(OSError, UnicodeError):
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    return set()


def broker(now: Mapping[str, str], then: Mapping[str, str], inventory: set[str]) -> str:
    """Return what to say of a broker that the inventory would change."""
    old = min(now.keys() & inventory, default="")
    move = f"ansible-playbook playbooks/rabbitmq_move.yml -e rabbitmq_move_from={old or '<its name>'}"
    first = "" if old else f"write the host of {', '.join(now)} into the inventory again, outside of the group, and "
    return (
        f"The application's broker is {', '.join(now)} ({BROKER}), and the inventory (group rabbitmq) names "
        f"{', '.join(then)}: tasks that wait in the one would stay there. To move them, {first}type: {move}. If none "
        f"wait there, or it is lost for ever, add once: {LEAVE}"
    )


def store(now: Mapping[str, str], then: Mapping[str, str], inventory: set[str]) -> str:
    """Return what to say of a result store that the inventory would change."""
    return (
        f"The application's result store is {', '.join(now)} ({STORE}), and the inventory (group result_store) names "
        f"{', '.join(then)}: results that are stored in the one would no longer be found. If nobody waits for any "
        f"(they expire within a day), or it is lost for ever, add once: {LEAVE}"
    )
