"""Rules for the inventory as a whole: groups, and what several variables or several hosts have to agree on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    GROUPS,
    OWN_SERVICE,
    Host,
    Inventory,
    Mistake,
    did_you_mean,
    is_int,
    nearest,
    shown,
    wrong,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import is_loopback, is_reachable_ipv4
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_nodes
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import VARIABLE as SENTINEL
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_address

SERVICES = {"rabbitmq": "celery_app_broker_host", "result_store": "celery_app_result_store_host"}


def groups(inventory: Inventory) -> Iterator[Mistake]:
    """The groups are there, have hosts, and are spelt as the playbooks spell them."""
    for group, members in inventory.groups.items():
        near = difflib.get_close_matches(group, GROUPS, 1, 0.8)
        if near and group not in GROUPS and set(members) - set(inventory.members(near[0])):
            meant = inventory.called(near[0])
            text = f"group {inventory.called(group)}: no playbook knows it; did you mean {meant}? Write: {meant}:"
            yield Mistake(group, text)
    for group in ("rabbitmq", "result_store", "worker"):
        instead = SERVICES.get(group, "")
        elsewhere = inventory.hosts and all(
            instead in host.given or (instead and not host.uses_group(group)) for host in inventory.hosts
        )
        if inventory.members(group) or elsewhere:
            continue
        name = inventory.called(group)
        text = f"group {name} has no host" + (
            f", and {OWN_SERVICE[group][0]} names no other." if instead else ": nobody would run a task."
        )
        if inventory.prefix:
            text += f" (In an inventory with groups like {name} all of the kit's groups begin so.)"
        yield Mistake(group, f"{text} Write: {name}: {{hosts: {{{inventory.example}: }}}}")
    if inventory.hosts and inventory.hosts[0]["celery_web_command"] and not inventory.members("web"):
        name = inventory.called("web")
        text = f"group {name} has no host, and celery_web_command is set."
        yield Mistake("web", f"{text} Write: {name}: {{hosts: {{{inventory.example}: }}}}, or celery_web_command: ''")


def scheduler(inventory: Inventory) -> Iterator[Mistake]:
    """Of several hosts at one broker, one schedules by the lease; a group without a host is one without a scheduler."""
    members, name = inventory.members("scheduler"), inventory.called("scheduler")
    if not inventory.hosts or inventory.hosts[0]["celery_scheduler_enabled"] is None:
        return
    enabled, variable = inventory.hosts[0].true("celery_scheduler_enabled"), "celery_scheduler_enabled"
    # With -e it is said for one run, about one of several applications that share the groups.
    if not enabled and members and variable not in inventory.said_by_run:
        text = f"{variable} is false, and group {name} has {', '.join(members)}: is there to be one?"
        fix = f"{name}: {{hosts: {{}}}}, or {variable}: true"
        first = f"ansible-playbook playbooks/deploy.yml -e {variable}=false"
        yield Mistake(variable, f"{text} Write: {fix}. To remove one that runs, first type: {first}")
    machines: dict[tuple[str, ...], list[str]] = {}
    for host in [*inventory.hosts, *inventory.others]:
        if "scheduler" in host.groups and enabled:
            machines.setdefault((host.machine, *inventory.fleet(host)), []).append(host.name)
    for names in machines.values():
        if len(names) > 1:
            text = f"group {name} has {', '.join(names)}, which are one machine: none would stand in for the other."
            yield Mistake("scheduler", f"{text} Write: {name}: {{hosts: {{{names[0]}: }}}}")


def one_application(inventory: Inventory) -> Iterator[Mistake]:
    """A run is about one application: its source is packed once, its results are in one place."""
    everywhere = ("celery_app_name", "celery_app_result_store_database", "flower_host")
    for variable in (*everywhere, "celery_app_source", "celery_app_version", "celery_app_requirements"):
        values: dict[str, list[str]] = {}
        for host in inventory.hosts:
            if variable not in everywhere and not host.runs_app:
                continue  # a broker's host has no release
            values.setdefault(host.text(variable), []).append(host.name)
        if len(values) > 1:
            each = "; ".join(f"{shown(value)} on {', '.join(names[:5])}" for value, names in list(values.items())[:3])
            text = f"{variable} is {each}: a run is about one application."
            yield Mistake(variable, f"{text} Write {variable} in group_vars/all, or type: --limit {inventory.example}")


def migrate_host(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """The host that migrates is one that has the release."""
    variable = "celery_app_migrate_host"
    known = list(dict.fromkeys(name for group in ("web", "worker", "scheduler") for name in inventory.members(group)))
    if known and variable in host.given and host[variable] and host[variable] not in known:
        problem = f"no host of worker, scheduler or web has that name; {did_you_mean(host[variable], known)}"
        yield wrong(variable, host[variable], problem, nearest(host[variable], known))


def flower(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """Flower runs on a host that has Supervisor, and has a URL where the broker is somebody else's."""
    wanted = host.text("flower_host")
    if not wanted or host.name != (inventory.hosts or [host])[0].name:
        return
    known = list(dict.fromkeys(name for group in ("worker", "scheduler", "web") for name in inventory.members(group)))
    if known and wanted not in known:
        problem = f"no host of worker, scheduler or web has that name; {did_you_mean(wanted, known)}"
        yield wrong("flower_host", wanted, problem, nearest(wanted, known))
    if not host.uses_group("rabbitmq") and "flower_broker_url" not in host.given:
        text = "flower_host is set, and the broker is your own: the kit makes no user there that may only look."
        write = "amqps://flower-shop:{{ vault_flower_broker_password }}@rabbitmq.example.com:5671/shop"
        yield Mistake("flower_broker_url", f'{text} Write: flower_broker_url: "{write}"')


def migration(inventory: Inventory) -> Iterator[Mistake]:
    """The host that migrates is among the hosts of a deploy: new code would meet the old schema."""
    if inventory.action != "deploy":
        return
    elsewhere = {host.name for host in inventory.others}
    missing: dict[str, list[Host]] = {}
    for host in inventory.hosts:
        migrates = host.text("celery_app_migrate_host")
        if host.runs_app and migrates in elsewhere:
            missing.setdefault(migrates, []).append(host)
    for name, hosts in missing.items():
        commands = [
            variable
            for variable in ("celery_app_migrate_command", "celery_app_seed_command")
            if any(host[variable] for host in hosts)
        ]
        if commands:
            skip = " ".join(f"-e {command}=" for command in commands)
            add = f"--limit '{inventory.limit},{name}'"
            if not inventory.limit or "!" in inventory.limit or "&" in inventory.limit:
                add = "the same without --limit"
            text = (
                f"celery_app_migrate_host is {name}, which runs {' and '.join(commands)}, and --limit leaves it out: "
                f"new code would meet the old schema. Type: {add}; or, to skip it on purpose, add {skip}"
            )
            yield Mistake("celery_app_migrate_host", text)


def left_behind(inventory: Inventory) -> list[str]:
    """The application's hosts that a run leaves out by --limit: they stay on the release they have."""
    fleets = {inventory.fleet(host) for host in inventory.hosts if host.runs_app}
    return [host.name for host in inventory.others if host.runs_app and inventory.fleet(host) in fleets]


def secrets_dir(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """A service and the programs that use it get the same passwords and the same CA, from one directory.

    By default it is beside the inventory: hosts of inventories in several directories have several.
    """
    variable = "celery_app_secrets_dir"
    for group in SERVICES:
        server = inventory.server(group, host) if host.runs_app or group in host.groups else None
        if not server or server.text("celery_app_name") != host.text("celery_app_name"):
            continue
        if host.directory(variable) != server.directory(variable):
            problem = f"{server.name} ({inventory.called(group)}) gets other passwords, from {server.text(variable)}."
            yield wrong(variable, host.text(variable), problem, f"{server.text(variable)} (for all hosts)")
            return


def longest_time_limit(host: Host) -> tuple[int | None, str]:
    """The seconds that a task of any program may take, and what says so."""
    limit, variable = host.int("celery_app_task_time_limit"), "celery_app_task_time_limit"
    for entry in host["celery_worker_programs"] or []:
        own = entry.get("time_limit") if isinstance(entry, Mapping) else None
        if limit is not None and is_int(own) and int(own) > limit:
            limit, variable = int(own), f"time_limit of {entry.get('name')} in celery_worker_programs"
    return limit, variable


def times(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """Each waits longer than the one inside: task, Supervisor, systemd; and task, broker."""
    limit, variable = longest_time_limit(host)
    if limit is None or limit < 2:
        return
    longest = max(layout.stop_timeout(limit), host.int("celery_web_stop_timeout") or 0)
    stop = host.int("supervisor_stop_timeout") if "supervisor_stop_timeout" in host.given else None
    if host.runs_app and stop is not None and stop <= longest:
        why = f"{variable} is {limit}" if longest == layout.stop_timeout(limit) else "celery_web_stop_timeout"
        problem = f"a program may take {longest} s to stop ({why}), and systemd would kill it before."
        yield wrong("supervisor_stop_timeout", stop, problem, f"{4 * longest}, or leave it out")
    broker = inventory.server("rabbitmq", host)
    if broker and "rabbitmq_consumer_timeout" in broker.given:
        timeout = broker.int("rabbitmq_consumer_timeout")
        if timeout is not None and timeout <= limit:
            problem = f"{variable} is {limit}, and the broker would cut off a worker that is still at work."
            write = f"{layout.consumer_timeout(limit)}, or leave it out"
            yield wrong("rabbitmq_consumer_timeout", timeout, problem, write)
    ready, uptime = host.int("celery_worker_ready_timeout"), host.int("celery_worker_min_uptime")
    if ready is not None and uptime is not None and 5 <= ready < uptime:
        problem = f"celery_worker_ready_timeout is {ready}, and a generation has to be up that long before that."
        yield wrong("celery_worker_min_uptime", uptime, problem, min(ready, 6))


def services(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """A host and the broker or result store that it uses speak of the same place, and that can be reached."""
    for group, address in SERVICES.items():
        port, bind, members = f"{group}_port", f"{group}_bind", inventory.members(group)
        if not host.runs_app or group in host.groups:
            continue
        if not host.uses_group(group):
            continue
        server = inventory.server(group, host)
        theirs, ours = server and server.int(port), host.int(port)
        if server and None not in (theirs, ours) and theirs != ours:
            problem = f"{host.name} uses {server.name}, where it is {theirs}."
            yield wrong(port, ours, problem, f"{theirs} (in group_vars/all)")
        elsewhere = server is None or server.machine != host.machine
        if elsewhere and (host.text(address) in ("localhost", "::1") or host.text(address).startswith("127.")):
            problem = f"{host.name} is not in group {inventory.called(group)}, so that nothing answers there."
            there = f"{members[0]} has an ansible_host that others reach" if members else f"{address}: 10.0.0.5"
            yield Mistake(address, f"{address} is {shown(host[address])}: {problem} Write {there}.")
        if server and bind in server.given and is_loopback(server[bind]):
            yield wrong(bind, server[bind], f"{host.name} can't reach that.", "0.0.0.0, or leave it out")


def clusters(inventory: Inventory) -> Iterator[Mistake]:
    """Several brokers form a cluster with a majority, several result stores one with Sentinel, if it is asked for."""
    known = {host.name: host for host in [*inventory.hosts, *inventory.others]}
    cluster, stores = inventory.cluster, inventory.stores
    for group in SERVICES:
        members, name = inventory.members(group), inventory.called(group)
        guests = [
            host.name
            for host in inventory.hosts
            if host.runs_app and group not in host.groups and host.uses_group(group)
        ]
        together = cluster if group == "rabbitmq" else stores
        if guests and len(members) > 1 and members != together:
            text = (
                f"group {name} has {', '.join(members)}, which make no cluster; {guests[0]} would use the first alone."
            )
            odd = f", or {SENTINEL}: true (with an odd number of hosts)" if group == "result_store" else ""
            yield Mistake(group, f"{text} Write: {name}: {{hosts: {{{members[0]}: }}}}{odd}")
    if stores:
        yield from store_of_several(inventory.called("result_store"), [known[name] for name in stores if name in known])
    if cluster:
        yield from cluster_size(inventory.called("rabbitmq"), cluster)
        yield from cluster_names([known[name] for name in cluster if name in known])


def store_of_several(group: str, members: list[Host]) -> Iterator[Mistake]:
    """Sentinels decide by a majority, and clients reach every host at the address that they say."""
    names = [host.name for host in members]
    if len(names) % 2 == 0 or len(names) < 3:
        text = (
            f"{SENTINEL} is true, and group {group} has {len(names)} host{'s' * (len(names) > 1)}: {', '.join(names)}. "
            "Sentinel replaces a primary while more than half of the hosts are up: it takes an odd number, from three."
        )
        yield Mistake(
            "result_store", f"{text} Write: {SENTINEL}: false and {group}: {{hosts: {{{names[0]}: }}}}, or add one host"
        )
    seen: dict[str, str] = {}
    for host in members:
        address = store_address(host.name, host.known)
        if not host.true(SENTINEL):
            yield wrong(SENTINEL, False, f"{host.name} is in group {group} with others.", "true (in group_vars/all)")
        if host.text("result_store_instance"):
            problem = "a store of several hosts takes Debian's Redis."
            yield wrong("result_store_instance", host["result_store_instance"], problem, "''")
        if not is_reachable_ipv4(address):
            text = f"ansible_host of {host.name} is {shown(address)}: Sentinel tells clients an IPv4 address."
            yield Mistake("result_store_address", f"{text} Write: result_store_address: 10.0.0.11")
        elif address in seen:
            text = f"result_store_address is {shown(address)} on {seen[address]} and on {host.name}."
            yield Mistake("result_store_address", f"{text} Write: result_store_address: the host's own address")
        seen.setdefault(address, host.name)


def cluster_size(group: str, members: list[str]) -> Iterator[Mistake]:
    """A cluster goes on with a majority of its nodes: with two, none may fail."""
    count = len(members)
    if count % 2 == 0:
        text = (
            f"group {group} has {count} hosts: {', '.join(members)}. A cluster goes on while more than half of its "
            f"nodes are up, so that {count} survive no more failures than {count - 1}."
        )
        fewer = ", ".join(f"{name}: " for name in members[:-1])
        alone = "" if count > 2 else " If each is a system of its own: rabbitmq_bind: 127.0.0.1"
        leave = " A host that is in the cluster has to leave it first: docs/fleet.md, To shrink."
        yield Mistake("rabbitmq", f"{text} Write: {group}: {{hosts: {{{fewer}}}}}, or add one host.{leave}{alone}")


def cluster_names(members: list[Host]) -> Iterator[Mistake]:
    """The nodes of a cluster have names of their own, and addresses at which the others reach them."""
    seen: dict[str, str] = {}
    for host in members:
        [node] = cluster_nodes([host.name], lambda _, host=host: host.known)
        if not is_reachable_ipv4(node["address"]):
            text = (
                f"ansible_host of {host.name} is {shown(node['address'])}: the nodes of a cluster reach each other at "
                "IPv4 addresses."
            )
            yield Mistake("rabbitmq_distribution_bind", f"{text} Write: rabbitmq_distribution_bind: 10.0.0.11")
        for variable, value in (("rabbitmq_node_name", node["name"]), ("rabbitmq_distribution_bind", node["address"])):
            if value in seen:
                text = f"{variable} is {shown(value)} on {seen[value]} and on {host.name}, which form a cluster."
                fix = f"rabbit@{host.name.lower()}" if variable == "rabbitmq_node_name" else "the host's own address"
                yield Mistake(variable, f"{text} Write: {variable}: {fix}")
            seen.setdefault(value, host.name)


def neighbours(inventory: Inventory) -> Iterator[Mistake]:
    """Two applications of one inventory claim neither the same name nor the same port of a machine."""
    hosts = [host for host in [*inventory.hosts, *inventory.others] if host.runs_app]
    for index, host in enumerate(hosts):
        for other in hosts[:index]:
            yield from _clash(host, other, inventory)


def _clash(host: Host, other: Host, inventory: Inventory) -> Iterator[Mistake]:
    name, theirs = host.text("celery_app_name"), other.text("celery_app_name")
    another = host["celery_app_source"] != other["celery_app_source"]
    broker = inventory.server("rabbitmq", host)
    if host.machine != other.machine:
        if name == theirs and another and broker and broker is inventory.server("rabbitmq", other):
            problem = f"{other.name} has another application of that name at the same broker: one vhost for two."
            yield wrong("celery_app_name", name, problem, f"{name}_2 (on {host.name})")
    elif name == theirs and another:
        problem = f"{other.name} is the same machine and has another application of that name: one user for two."
        yield wrong("celery_app_name", name, problem, f"{name}_2 (on {host.name})")
    elif name != theirs and host.web_port is not None and host.web_port == other.web_port:
        problem = f"{theirs} has that port; {other.name} is the same machine."
        yield wrong(
            "celery_web_bind", host["celery_web_bind"], problem, f"127.0.0.1:{host.web_port + 1} (on {host.name})"
        )
