"""Where broker and result store speak TLS, and what their certificates have to be for."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import address_of, as_ip
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_members

NAME = "celery-ops-rabbitmq"
"""In the certificate of every broker: a client verifies one name for all URLs."""

CA_NAME = "celery-ops CA"
"""What the names of the kit's own CAs begin with."""
CLIENTS = "clients"
"""Inside of celery_app_tls_directory: what programs show to broker and result store, <app>-<host>.pem."""
DIRECTORY = "celery_app_tls_directory"

Given = Callable[[str], Mapping[str, Any]]
"""The variables that the inventory gives to a host, by the host's name."""


def is_on(group: str, groups: Mapping[str, list[str]], given: Given, wanted: Any) -> bool:
    """Tell whether the group's service speaks TLS: where programs of other hosts use it, or it is a cluster."""
    members = groups.get(group) or []
    shared = group == "rabbitmq" and any(boolean(given(host).get("rabbitmq_shared"), strict=False) for host in members)
    if not members or shared or not boolean(wanted, strict=False):
        return False
    is_cluster = cluster_members(groups, given) if group == "rabbitmq" else store_members(groups, given)
    return bool(is_cluster) or bool(set(app_hosts(groups)) - set(members))


def client_file(directory: Any, app: str, host: str) -> Path:
    """Return the file on the control node with certificate and key that an application's programs show on a host."""
    return Path(str(directory)).expanduser() / CLIENTS / f"{app}-{host}.pem"


def makes_clients(given: Mapping[str, Any], directory: Any) -> bool:
    """Tell whether the kit makes what programs show, by a CA of its own: this inventory's, or one that it shares."""
    top = Path(str(directory)).expanduser()
    if DIRECTORY not in given or not (top / "ca.key").is_file() or not (top / "ca.crt").is_file():
        return DIRECTORY not in given
    bodies = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END", (top / "ca.crt").read_text(), re.DOTALL)
    return any(CA_NAME.encode() in base64.b64decode(body) for body in bodies)


def shows_certificate(given: Mapping[str, Any], directory: Any, app: str, host: str) -> bool:
    """Tell whether the programs of a host show a certificate: one that the kit makes, or one of the inventory's own."""
    return makes_clients(given, directory) or client_file(directory, app, host).is_file()


def names_of(host: str, known: Mapping[str, Any], is_cluster: bool, is_own: bool) -> list[str]:
    """Return what clients call a host: what its certificate has to be for.

    One that the kit makes is for more than they ask for today: any of its names, and the one that all brokers have.
    """
    address = address_of(host, known)
    # Sentinel tells clients this one.
    store = [str(known["result_store_address"])] if known.get("result_store_address") else []
    asked = [address, *store, *([NAME] if is_cluster else [])]
    names = asked if is_own else [host, *asked, "localhost", "127.0.0.1", "::1", NAME]
    return [name for name in dict.fromkeys(names) if as_ip(name) or is_dns_name(name)]


def is_dns_name(name: str) -> bool:
    """Whether a certificate may be for that name; an underscore is in many hosts' names, and does no harm."""
    return name.isascii() and all(
        part and len(part) < 64 and part.replace("-", "").replace("_", "").isalnum() for part in name.split(".")
    )
