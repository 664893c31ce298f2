"""What the playbooks give to the roles that know nothing of Celery, from the inventory's celery_ variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import user_names
from ansible_collections.celery_ops.kit.plugins.plugin_utils import rotation, tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import APP_GROUPS, GROUPS
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.cross_host import (
    SERVICES,
    longest_time_limit,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, trusted
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import address_of, default_bind
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members, cluster_nodes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_address, store_members

ERLANG_COOKIE = (
    f"{{{{ lookup('ansible.builtin.password', celery_app_secrets_dir ~ '/{rotation.COOKIE}', length=40, "
    "chars=['ascii_letters', 'digits']) }}"
)
"""In the inventory's own directory of secrets: one for each cluster."""
REPLICATION_PASSWORD = ERLANG_COOKIE.replace(rotation.COOKIE, rotation.REPLICATION)
"""Likewise, one for each result store of several hosts."""
FLOWER_PASSWORD = (
    "{{ lookup('ansible.builtin.password', celery_app_secrets_dir ~ '/' ~ celery_app_name ~ '_flower_%s', length=40, "
    "chars=['ascii_letters', 'digits']) }}"
)
"""Likewise, for the page of Flower and for its user at the broker."""


def rabbitmq_applications(host: Host, reader: Reader) -> list[dict[str, Any]]:
    """The application, with the queues whose messages may expire without being lost tasks."""
    return [
        {
            "name": host.need("celery_app_name"),
            "user": host.need("celery_app_broker_user"),
            "password": host.need("celery_app_broker_password"),
            "dead_letter_except": layout.HOUSEKEEPING_QUEUES,
            "limited_users": [flower_broker_user(host)] if has_flower(host) else [],
        }
    ]


def has_flower(host: Host) -> bool:
    """Whether a host shows the application's tasks by Flower, which logs in at the kit's broker."""
    return bool(host.text("flower_host")) and host.uses_group("rabbitmq") and "flower_broker_url" not in host.given


def flower_broker_user(host: Host) -> dict[str, str]:
    """Flower's user at the broker: it hears events in queues of its own, and can publish and delete nothing else.

    A question to workers goes by an exchange that carries commands as well: only where Flower may give them.
    """
    queue, replies = r"celeryev\.flower\.[-0-9a-f]+", r"[-0-9a-f]+\.reply\.celery\.pidbox"
    control = host.true("flower_control")
    exchanges = [r"(reply\.)?celery\.pidbox"]
    allowed = {
        "configure": [queue, *([replies, *exchanges] if control else [])],
        "write": [queue, *([replies, r"celery\.pidbox"] if control else [])],
        "read": ["celeryev", queue, *([replies, *exchanges] if control else [])],
    }
    return {
        "name": f"flower-{host.need('celery_app_name')}",
        "password": str(host.evaluate(trusted(FLOWER_PASSWORD % "broker_password"))),
        **{what: f"^({'|'.join(patterns)})$" for what, patterns in allowed.items()},
    }


def flower_broker_url(host: Host, reader: Reader) -> str:
    """The URLs that the application has, with Flower's user in the place of its own."""
    if not has_flower(host):
        return str(given(host, "flower_broker_url", ""))
    user = flower_broker_user(host)
    urls = host.need("celery_app_broker_url_effective").split(";")
    return ";".join(re.sub(r"//[^/@]*@", f"//{user['name']}:{user['password']}@", url) for url in urls)


def flower_password(host: Host, reader: Reader) -> str:
    """The inventory's own, or one that is generated once and kept on the control node."""
    if not host.text("flower_host"):
        return ""
    return str(given(host, "flower_password", "") or host.evaluate(trusted(FLOWER_PASSWORD % "password")))


def flower_broker_ca(host: Host, reader: Reader) -> str:
    """The file on the control node with the CA of the kit's broker; "" without TLS."""
    encrypted = has_flower(host) and "amqps://" in host.need("celery_app_broker_url_effective")
    return str(given(host, "flower_broker_ca", host.need("celery_app_tls_ca") if encrypted else ""))


def flower_broker_client(host: Host, reader: Reader) -> str:
    """The file on the control node with what Flower shows to the kit's broker: the same as the host's programs."""
    return str(given(host, "flower_broker_client", app_client(host, reader) if flower_broker_ca(host, reader) else ""))


def flower_broker_name(host: Host, reader: Reader) -> str:
    """The name that all nodes of a cluster have in their certificates; "" for that of the URL."""
    in_cluster = has_flower(host) and bool(members_of(reader))
    return str(given(host, "flower_broker_name", tls.NAME if in_cluster else ""))


def result_store_applications(host: Host, reader: Reader) -> list[dict[str, Any]]:
    """The application, with a database of its own."""
    return [
        {
            "name": host.need("celery_app_name"),
            "password": host.need("celery_app_result_store_password"),
            "database": int(host.need("celery_app_result_store_database")),
        }
    ]


def stores_of(reader: Reader) -> list[str]:
    """The hosts that keep the results together; none where each store is alone."""
    return store_members(reader.groups, reader.hostvars.__getitem__)


def result_store_nodes(host: Host, reader: Reader) -> list[str]:
    """The addresses of the hosts that keep the results together; the first one's is the primary at first."""
    return [store_address(name, reader.hostvars[name]) for name in stores_of(reader)]


def result_store_address(host: Host, reader: Reader) -> str:
    """The host's own among them."""
    return store_address(host.name, host.known) if host.name in stores_of(reader) else ""


def result_store_replication_password(host: Host, reader: Reader) -> str:
    """What the hosts log in to each other with: the inventory's own, or one that is generated once."""
    if host.name not in stores_of(reader):
        return ""
    return str(given(host, rotation.REPLICATION, "") or host.evaluate(trusted(REPLICATION_PASSWORD)))


def result_store_bind(host: Host, reader: Reader) -> str:
    """Where Redis listens: one of several for the others as well."""
    return given(host, "result_store_bind", "0.0.0.0") if stores_of(reader) else bind("result_store")(host, reader)


def former_users(host: Host, reader: Reader) -> list[str]:
    """The application's user at the broker that a rotation leaves behind."""
    names = user_names(host.need("celery_app_name"))
    return [name for name in names if name != host.need("celery_app_broker_user")]


def keeps_former(host: Host, reader: Reader) -> bool:
    """Whether a rotation is under way: programs that still run have the password before."""
    return rotation.is_under_way(host.need("celery_app_secrets_dir"), host.need("celery_app_name"))


def bind(group: str) -> Callable[[Host, Reader], str]:
    """Where a service listens: for other hosts if programs on other hosts use it."""

    def of(host: Host, reader: Reader) -> str:
        elsewhere = set(reader.app_hosts) - set(reader.members(group))
        default = default_bind(reader.address(host.name), for_others=bool(elsewhere))
        return given(host, f"{group}_bind", default)

    return of


def rabbitmq_cluster_nodes(host: Host, reader: Reader) -> list[dict[str, str]]:
    """The nodes of the cluster that the group's hosts form; none for a broker that is alone."""
    return given(host, "rabbitmq_cluster_nodes", cluster_nodes(members_of(reader), reader.hostvars.__getitem__))


def members_of(reader: Reader) -> list[str]:
    """The hosts that form a cluster; none where brokers are alone."""
    return cluster_members(reader.groups, reader.hostvars.__getitem__)


def own_node(key: str, variable: str, alone: str) -> Callable[[Host, Reader], str]:
    """What the host's own entry among the cluster's nodes says."""

    def of(host: Host, reader: Reader) -> str:
        if host.name not in members_of(reader):
            return given(host, variable, alone)
        return cluster_nodes([host.name], reader.hostvars.__getitem__)[0][key]

    return of


def uses_tls(group: str, host: Host, reader: Reader) -> bool:
    """Whether the host's broker or result store speaks TLS."""
    return group in host.groups and tls.is_on(
        group, reader.groups, reader.hostvars.__getitem__, host.need("celery_app_tls")
    )


def certificate(group: str, end: str) -> Callable[[Host, Reader], str]:
    """The file on the control node with the host's certificate or key; "" without TLS."""

    def of(host: Host, reader: Reader) -> str:
        derived = f"{host.need('celery_app_tls_directory')}/{host.name}.{end}" if uses_tls(group, host, reader) else ""
        return str(given(host, f"{group}_tls_{'certificate' if end == 'crt' else 'key'}", derived))

    return of


def rabbitmq_distribution_tls(host: Host, reader: Reader) -> bool:
    """Whether the nodes of the cluster use TLS with each other: where the broker has a certificate."""
    derived = host.name in members_of(reader) and bool(certificate("rabbitmq", "crt")(host, reader))
    return boolean(given(host, "rabbitmq_distribution_tls", derived))


def rabbitmq_erlang_cookie(host: Host, reader: Reader) -> str:
    """The cluster's secret: the inventory's own, or one that is generated once and kept on the control node."""
    if host.name not in members_of(reader):
        return ""
    return str(given(host, "rabbitmq_erlang_cookie", "") or host.evaluate(trusted(ERLANG_COOKIE)))


def rabbitmq_bind(host: Host, reader: Reader) -> str:
    """Where the broker listens: in a cluster for the programs of every host, on the brokers' hosts as well."""
    return given(host, "rabbitmq_bind", "0.0.0.0") if members_of(reader) else bind("rabbitmq")(host, reader)


def authorities(group: str) -> Callable[[Host, Reader], str]:
    """The file on the control node with the CA that has signed the certificate; "" without TLS."""

    def of(host: Host, reader: Reader) -> str:
        derived = host.need("celery_app_tls_ca") if uses_tls(group, host, reader) else ""
        return str(given(host, f"{group}_tls_ca", derived))

    return of


def app_authorities(host: Host, reader: Reader) -> str:
    """The file on the control node with the CA that the application's programs trust; "" without TLS."""
    groups = [group for group in ("rabbitmq", "result_store") if host.uses_group(group)]
    wanted = host.need("celery_app_tls")
    is_on = any(tls.is_on(group, reader.groups, reader.hostvars.__getitem__, wanted) for group in groups)
    return str(host.need("celery_app_tls_ca")) if is_on else ""


def app_client(host: Host, reader: Reader) -> str:
    """The file on the control node with what the application's programs show on the host; "" for nothing."""
    app, directory = host.need("celery_app_name"), host.need(tls.DIRECTORY)
    is_on = app_authorities(host, reader) and tls.shows_certificate(host.given, directory, app, host.name)
    return str(tls.client_file(directory, app, host.name)) if is_on else ""


def verifies_clients(group: str) -> Callable[[Host, Reader], bool]:
    """Whether the host's broker or result store refuses clients without a certificate."""

    def of(host: Host, reader: Reader) -> bool:
        wanted = bool(certificate(group, "crt")(host, reader)) and host.true("celery_app_tls_verify_clients")
        return boolean(given(host, f"{group}_tls_verify_clients", wanted))

    return of


def firewall_rules(host: Host, reader: Reader) -> list[dict[str, Any]]:
    """Who may reach the services of this host; nothing where no other host uses them."""

    def serves_others(group: str) -> bool:
        return group in host.groups and tls.is_on(group, reader.groups, reader.hostvars.__getitem__, True)

    if not host.true("celery_app_firewall"):
        return []
    ours = reader.kit_hosts
    # A broker that the application moves from is in none of its groups any more.
    others = [name for name in reader.hostvars if name not in ours]
    allowed = {"celery_app_firewall_allow": allow} if (allow := host.need("celery_app_firewall_allow")) else {}
    peers = {name: addresses_of(reader.hostvars[name], name) for name in [*ours, *others]} | allowed
    rules = []
    if serves_others("rabbitmq"):
        rules.append({"ports": [host.int(port_of("rabbitmq", host))], "peers": peers, "optional": others})
    if serves_others("result_store"):
        sentinel = [host.int("result_store_sentinel_port")] if host.name in stores_of(reader) else []
        rules.append({"ports": [host.int("result_store_port"), *sentinel], "peers": peers, "optional": others})
    nodes = members_of(reader)
    if host.name in nodes:
        rules.append({"ports": layout.ERLANG_PORTS, "peers": {name: peers[name] for name in nodes}})
    return rules


def servers(reader: Reader) -> list[Host]:
    """The hosts with a broker or result store."""
    return [reader.host(name) for name in {*reader.members("rabbitmq"), *reader.members("result_store")}]


def port_of(group: str, host: Host) -> str:
    """The variable with the port that other hosts use."""
    return f"{group}_tls_port" if group == "rabbitmq" and host.true("celery_app_tls") else f"{group}_port"


def addresses_of(known: Mapping[str, Any], name: str) -> list[str]:
    """The address of a host in the inventory, and those of its interfaces: its routes decide which of them it uses."""
    facts = known.get("ansible_facts") or {}
    found = [*facts.get("all_ipv4_addresses", []), *facts.get("all_ipv6_addresses", [])]
    local = [each for each in found if not each.lower().startswith(("127.", "::1", "fe80:", "169.254."))]
    return list(dict.fromkeys([address_of(name, known), *local]))


def changes_firewall(host: Host, reader: Reader) -> bool:
    """Whether the host has rules to make, or the inventory says that it is to have none any more."""
    return bool(firewall_rules(host, reader)) or (
        "celery_app_firewall" in host.given and bool(host.groups & {"rabbitmq", "result_store"})
    )


def rabbitmq_move_urls(host: Host, reader: Reader) -> list[str]:
    """The URLs for shovels, which verify the new broker by the name that its certificate has for all of its URLs.

    A certificate of the inventory's own for a broker that is alone need not have it: there it is encrypted alone.
    """
    urls = host.need("celery_app_broker_url_effective").split(";")
    verify = "verify=verify_none"
    if rabbitmq_move_ca(host, reader):
        file = layout.move_authority(host.need("celery_app_name"))
        verify = f"cacertfile={file}&verify=verify_peer&server_name_indication={tls.NAME}"
    if host.true("celery_app_tls_verify_clients"):
        shown = layout.CERTIFICATES["broker"]
        verify += f"&certfile={shown}&keyfile={shown.with_name('key.pem')}"
    return [f"{url}?{verify}" if url.startswith("amqps://") and "?" not in url else url for url in urls]


def rabbitmq_move_ca(host: Host, reader: Reader) -> str:
    """The file on the control node with the CA of the new broker, where the old one can verify it."""
    is_own = bool({"celery_app_tls_directory", "celery_app_tls_ca"} & set(host.given))
    encrypted = "amqps://" in host.need("celery_app_broker_url_effective")
    has_name = bool(members_of(reader)) or not is_own
    return str(host.need("celery_app_tls_ca")) if encrypted and has_name and host.uses_group("rabbitmq") else ""


def rabbitmq_consumer_timeout(host: Host, reader: Reader) -> int:
    """Longer than any task of any worker host may take; what was found in place for other applications stays."""
    found = host.given.get("__preflight_host") or {}
    return max(consumer_timeout(host, reader), int(found.get("consumer_timeout") or 0))


def consumer_timeout(host: Host, reader: Reader) -> int:
    """Longer than any task of any worker host of this inventory may take."""
    limits = [longest_time_limit(reader.host(name))[0] for name in reader.members("worker")]
    return int(given(host, "rabbitmq_consumer_timeout", layout.consumer_timeout(max(filter(None, limits), default=0))))


def supervisor_stop_timeout(host: Host, reader: Reader) -> int:
    """Longer than the programs of this host may take to finish their tasks."""
    derived = layout.supervisor_stop_timeout(longest_time_limit(host)[0] or 0)
    return int(given(host, "supervisor_stop_timeout", max(derived, 4 * (host.int("celery_web_stop_timeout") or 0))))


def given(host: Host, variable: str, derived: Any) -> Any:
    """What the inventory sets itself, or what the kit derives."""
    return host.need(variable) if variable in host.given else derived


def preflight_requirements(host: Host, reader: Reader) -> dict[str, Any]:
    """What the host has to fulfil, in the words of the module host_check."""
    own = host.groups - APP_GROUPS
    binds = {f"{group}_bind": INPUTS[f"{group}_bind"](host, reader) for group in own}
    listeners = {f"{group}_port": f"{binds[f'{group}_bind']}:{host.text(f'{group}_port')}" for group in own}
    if uses_tls("rabbitmq", host, reader):
        listeners["rabbitmq_tls_port"] = f"{binds['rabbitmq_bind']}:{host.text('rabbitmq_tls_port')}"
        listeners["rabbitmq_port"] = f"127.0.0.1:{host.text('rabbitmq_port')}"
    if host.name in stores_of(reader):
        port = host.text("result_store_sentinel_port")
        listeners["result_store_sentinel_port"] = f"{binds['result_store_bind']}:{port}"
    if host.web_port is not None:
        listeners["celery_web_bind"] = host.text("celery_web_bind")
    # Its default is a share of the host's memory: that fits.
    store = "result_store" in host.groups and "result_store_max_memory" in host.given
    return {
        "app": host.text("celery_app_name"),
        "command": host.text("celery_app_command"),
        "groups": sorted(host.groups),
        "programs": host["celery_worker_programs"] if "worker" in host.groups else [],
        "overlap": host.text("celery_worker_handover") == "overlap",
        "python": host.text("celery_app_python"),
        "listeners": listeners,
        "binds": binds,
        "consumer_timeout": consumer_timeout(host, reader) if "rabbitmq" in own else 0,
        "node_name": INPUTS["rabbitmq_node_name"](host, reader) if "rabbitmq" in host.groups else "",
        "distribution_bind": INPUTS["rabbitmq_distribution_bind"](host, reader),
        "cluster_nodes": [node["name"] for node in rabbitmq_cluster_nodes(host, reader)] if "rabbitmq" in own else [],
        "verify_clients": host.true("celery_app_tls_verify_clients"),
        "broker_shared": host.true("rabbitmq_shared"),
        "time_limit": longest_time_limit(host)[0],
        "store_instance": host.text("result_store_instance"),
        "store_database": host.int("celery_app_result_store_database"),
        "store_database_is_set": "celery_app_result_store_database" in host.given,
        "services_in_force": services_in_force(host, reader),
        "store_primary": result_store_nodes(host, reader)[:1],
        "store_address": result_store_address(host, reader),
        "store_memory": host.int("result_store_max_memory") if store else 0,
    }


def services_in_force(host: Host, reader: Reader) -> dict[str, Any]:
    """What the inventory says of broker and result store, where the kit's own that are in force must not change."""
    if not host.runs_app or host.true("preflight_leave_services"):
        return {}
    addresses = {
        group: host.need(variable).split(",") for group, variable in SERVICES.items() if host.uses_group(group)
    }
    hosts = {reader.address(name): name for name in reader.hostvars}
    # Where it reaches its own, which may listen at no other.
    own = [group for group in addresses if group in host.groups]
    hosts |= {own_address(INPUTS[f"{group}_bind"](host, reader)): host.name for group in own}
    if "result_store" in addresses and (stores := stores_of(reader)):
        nodes = result_store_nodes(host, reader)
        addresses["result_store"], hosts = nodes, hosts | dict(zip(nodes, stores, strict=True))
    return {
        "addresses": addresses,
        "hosts": {**{name: name for name in reader.hostvars}, **hosts},
        "here": host.name,
        "moves_from": str(host.given.get("rabbitmq_move_from", "")),
    }


def services(host: Host, reader: Reader) -> list[str]:
    """The services of this host that applications share."""
    return [group for group in GROUPS if group in host.groups - APP_GROUPS] + ["supervisor"] * host.runs_app


def may_move_results(host: Host, reader: Reader) -> bool:
    """Whether results that are stored may be left behind: the inventory names the database itself."""
    return "celery_app_result_store_database" in host.given


INPUTS: dict[str, Callable[[Host, Reader], Any]] = {
    "rabbitmq_applications": rabbitmq_applications,
    "former_users": former_users,
    "rabbitmq_bind": rabbitmq_bind,
    "rabbitmq_cluster_nodes": rabbitmq_cluster_nodes,
    "rabbitmq_node_name": own_node("name", "rabbitmq_node_name", "rabbit@localhost"),
    "rabbitmq_distribution_bind": own_node("address", "rabbitmq_distribution_bind", "127.0.0.1"),
    "rabbitmq_distribution_tls": rabbitmq_distribution_tls,
    "rabbitmq_erlang_cookie": rabbitmq_erlang_cookie,
    "rabbitmq_move_urls": rabbitmq_move_urls,
    "rabbitmq_move_ca": rabbitmq_move_ca,
    "rabbitmq_consumer_timeout": rabbitmq_consumer_timeout,
    "result_store_applications": result_store_applications,
    "result_store_keep_former": keeps_former,
    "rabbitmq_tls_certificate": certificate("rabbitmq", "crt"),
    "rabbitmq_tls_key": certificate("rabbitmq", "key"),
    "rabbitmq_tls_ca": authorities("rabbitmq"),
    "rabbitmq_tls_verify_clients": verifies_clients("rabbitmq"),
    "result_store_tls_certificate": certificate("result_store", "crt"),
    "result_store_tls_key": certificate("result_store", "key"),
    "result_store_tls_ca": authorities("result_store"),
    "result_store_tls_verify_clients": verifies_clients("result_store"),
    "firewall_rules": firewall_rules,
    "listens_for_others": lambda host, reader: any(firewall_rules(each, reader) for each in servers(reader)),
    "changes_firewall": changes_firewall,
    "tls_ca": app_authorities,
    "tls_client": app_client,
    "monitoring_rabbitmq": lambda host, reader: "rabbitmq" in host.groups and given(host, "monitoring_rabbitmq", False),
    "flower_broker_url": flower_broker_url,
    "flower_broker_ca": flower_broker_ca,
    "flower_broker_client": flower_broker_client,
    "flower_broker_name": flower_broker_name,
    "flower_password": flower_password,
    "flower_install_environment": lambda host, reader: given(
        host, "flower_install_environment", host.need("celery_app_install_environment")
    ),
    "result_store_bind": result_store_bind,
    "result_store_nodes": result_store_nodes,
    "result_store_address": result_store_address,
    "result_store_replication_password": result_store_replication_password,
    "supervisor_stop_timeout": supervisor_stop_timeout,
    "preflight_requirements": preflight_requirements,
    "application": lambda host, reader: host.need("celery_app_name"),
    "services": services,
    "services_in_force": services_in_force,
    "celery_app_rollout": lambda host, reader: host.need("celery_app_rollout"),
    "may_move_results": may_move_results,
}
"""By the role's variable, what makes its value for a host."""
