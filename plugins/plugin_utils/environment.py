"""The application's environment: what it finds in its environment file, and the URLs of its broker and result store."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils import tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import (
    address_of,
    default_bind,
    is_loopback,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_address, store_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import (
    own_time_limits,
    worker_programs,
    worker_programs_of_hosts,
)


def environment_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that the application finds in its environment; the inventory's own come last and win."""
    app, programs = variables["celery_app_name"], worker_programs(variables)
    # Celery takes a limit in a message for more than that of the worker's command line.
    limit = 0 if own_time_limits(programs) else variables["celery_app_task_time_limit"]
    environment = {
        "CELERY_BROKER_URL": broker_url(variables),
        "CELERY_OPS_TASK_TIME_LIMIT": limit,
        "CELERY_OPS_START_TIMEOUT": variables.get("celery_worker_ready_timeout", layout.READY_TIMEOUT),
        "CELERY_OPS_DEFAULT_QUEUE": app,
        "CELERY_OPS_HOST": variables["inventory_hostname"],
    }
    # Of all hosts: in the default queue, which no program consumes, ticks would pile up and none arrive.
    everywhere = [entry for entries in worker_programs_of_hosts(variables) for entry in entries]
    if queue := tick_queue(everywhere, app):
        environment["CELERY_OPS_TICK_QUEUE"] = queue
    if variables.get("celery_app_log_format") == "json":
        environment["CELERY_OPS_LOG_FORMAT"] = "json"
    if boolean(variables.get("celery_app_keep_failed", False)):
        environment["CELERY_OPS_KEEP_FAILED"] = "1"
    if (backend := result_backend(variables)) is not None:
        environment["CELERY_RESULT_BACKEND"] = backend
    environment |= tls_of(variables, environment)
    return {**environment, **variables["celery_app_environment"], **variables["celery_app_secrets"]}


def tls_of(variables: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what the application's connections to the kit's own broker and result store need for TLS."""
    broker = "" if variables["celery_app_broker_url"] else environment["CELERY_BROKER_URL"]
    store = environment.get("CELERY_RESULT_BACKEND") if variables["celery_app_result_backend"] == "redis" else ""
    client, paths = client_certificate(variables), Layout(variables["celery_app_name"])
    shown = {layout.TLS_CLIENT: client} if client else {}
    connections = tls_environment(variables["celery_app_name"], f"{broker} {store}", ";" in broker)
    if str(store or "").startswith("sentinel://"):
        ca = {"CELERY_OPS_TLS_CA": str(paths.tls_ca)} if uses_tls(variables, "result_store") else {}
        connections |= {"CELERY_OPS_SENTINEL": layout.SENTINEL_PRIMARY} | ca
    return connections | (shown if "CELERY_OPS_TLS_CA" in connections else {})


def client_certificate(variables: Mapping[str, Any]) -> str:
    """Return the file on the host with what its programs show to broker and result store; "" for nothing."""
    app, here = variables["celery_app_name"], variables["inventory_hostname"]
    given = variables["hostvars"][here]
    is_there = tls.shows_certificate(given, variables.get(tls.DIRECTORY, ""), app, here)
    return str(Layout(app).tls_client) if is_there else ""


def broker_url(variables: Mapping[str, Any]) -> str:
    """Return the broker's URL: the inventory's own, or that of the application's vhost on the group rabbitmq.

    A cluster has one for each node, separated by semicolons, as Celery takes them.
    """
    if variables["celery_app_broker_url"]:
        return str(variables["celery_app_broker_url"])
    app, password = variables["celery_app_name"], variables["celery_app_broker_password"]
    login = f"{variables['celery_app_broker_user']}:{url_part(password)}"
    return ";".join(
        f"{scheme}://{login}@{url_host(address)}:{port}/{app}"
        for address in broker_members(variables)
        for scheme, port in [broker_listener(variables, address)]
    )


def broker_listener(variables: Mapping[str, Any], address: str) -> tuple[str, int]:
    """Return scheme and port at a broker's address: a broker that is alone has no TLS on its own loopback."""
    if uses_tls(variables, "rabbitmq") and not is_loopback(address):
        return "amqps", int(variables.get("rabbitmq_tls_port", 5671))
    return "amqp", int(variables.get("rabbitmq_port", 5672))


def uses_tls(variables: Mapping[str, Any], group: str) -> bool:
    """Tell whether the broker or result store of the inventory speaks TLS."""
    return tls.is_on(group, variables["groups"], lambda host: variables["hostvars"][host], variables["celery_app_tls"])


def tls_environment(app: str, urls: str, is_cluster: bool) -> dict[str, str]:
    """Return what connections to the kit's own services need beside their URLs; nothing without TLS."""
    if "amqps://" not in urls and "rediss://" not in urls:
        return {}
    # The last one is for clients that are told nothing else: applications without celery_ops.settings.
    name = {"CELERY_OPS_TLS_NAME": tls.NAME} if is_cluster and "amqps://" in urls else {}
    paths = Layout(app)
    return {"CELERY_OPS_TLS_CA": str(paths.tls_ca), "SSL_CERT_FILE": str(paths.tls_bundle), **name}


def broker_members(variables: Mapping[str, Any]) -> list[str]:
    """Return the addresses of the broker's nodes, in the order in which this host tries them."""
    return str(variables["celery_app_broker_host"]).split(",")


def broker_host(variables: Mapping[str, Any]) -> str:
    """Return the broker's address; of a cluster the addresses of all nodes, separated by commas.

    A node begins with itself, every other host with the one that its name draws: not all of them connect to the first.
    """
    members = cluster_members(variables["groups"], lambda host: variables["hostvars"][host])
    if not members:
        return service_host(variables, "rabbitmq")
    here = str(variables["inventory_hostname"])
    drawn = int(hashlib.sha256(here.encode()).hexdigest(), 16) % len(members)
    first = members.index(here) if here in members else drawn
    return ",".join(address_of(host, variables["hostvars"][host]) for host in members[first:] + members[:first])


def redis_url(variables: Mapping[str, Any]) -> str:
    """Return the URL of the application's database in the kit's Redis; of several hosts, those of their Sentinels."""
    login = f"{variables['celery_app_name']}:{url_part(variables['celery_app_result_store_password'])}"
    place = f"{url_host(variables['celery_app_result_store_host'])}:{variables.get('result_store_port', 6379)}"
    database = variables["celery_app_result_store_database"]
    if members := store_members(variables["groups"], lambda host: variables["hostvars"][host]):
        port = variables.get("result_store_sentinel_port", 26379)
        addresses = [store_address(host, variables["hostvars"][host]) for host in members]
        return ";".join(f"sentinel://{login}@{address}:{port}/{database}" for address in addresses)
    if not uses_tls(variables, "result_store"):
        return f"redis://{login}@{place}/{database}"
    ca = Layout(variables["celery_app_name"]).tls_ca
    # Before redis-py 6 the client does not verify the name by itself.
    verify = f"ssl_cert_reqs=required&ssl_ca_certs={ca}&ssl_check_hostname=true"
    if client := client_certificate(variables):
        verify += f"&ssl_certfile={client}"
    return f"rediss://{login}@{place}/{database}?{verify}"


def service_host(variables: Mapping[str, Any], group: str) -> str:
    """Return the address of the group's first host; a host that is in the group itself uses its own."""
    members = variables["groups"].get(group) or []
    if group in variables["group_names"]:
        here = variables["inventory_hostname"]
        given = variables["hostvars"][here]  # without the default of the service's role
        for_others = not set(app_hosts(variables["groups"])) <= set(members)
        own = own_address(given.get(f"{group}_bind") or default_bind(address_of(here, given), for_others=for_others))
        # With TLS the broker has its plain port on loopback, whatever it listens on.
        is_plain_too = own != "127.0.0.1" and group == "rabbitmq" and uses_tls(variables, group)
        return "127.0.0.1" if is_plain_too else own
    if not members:
        return "127.0.0.1"
    return address_of(members[0], variables["hostvars"][members[0]])


def users_left_out(variables: Mapping[str, Any], group: str) -> list[str]:
    """Return the hosts that use this host's broker or result store, and that the run leaves out by --limit."""
    members = list(variables["groups"].get(group) or [])

    def given(host: str) -> Mapping[str, Any]:
        return variables["hostvars"][host]

    together = (cluster_members if group == "rabbitmq" else store_members)(variables["groups"], given)
    serving = together or members[:1]
    if variables["inventory_hostname"] not in serving:
        return []
    here = set(variables["ansible_play_hosts_all"])
    elsewhere = [host for host in app_hosts(variables["groups"]) if host not in here]
    return [host for host in elsewhere if host not in members or host in serving]


def result_backend(variables: Mapping[str, Any]) -> str | None:
    """Return what Celery is told of its result backend; None for nothing, as the application's settings say."""
    backend = str(variables["celery_app_result_backend"])
    if backend == "redis":
        return redis_url(variables)
    return {"none": "disabled", "app": None}.get(backend, backend)


def url_host(address: Any) -> str:
    """Return an address so that a port may follow it in a URL: an IPv6 address in brackets."""
    text = str(address)
    return f"[{text}]" if ":" in text and not text.startswith("[") else text


def url_part(text: Any) -> str:
    """Return `text` so that it can stand as user or password in a URL."""
    return quote(str(text), safe="")


def tick_queue(programs: list[dict[str, Any]], default: str) -> str:
    """Return the queue for the scheduler's ticks, one that a program consumes; "" for one of the application's own.

    Which queue is the default is the application's to say: with programs that all name theirs, it may be none of them.
    """
    if not all(program.get("queues") for program in programs):
        return ""
    names = [str(queue) for program in programs for queue in program["queues"]]
    return default if default in names else next(iter(names), "")


def environment_text(environment: Mapping[str, Any]) -> str:
    """Return an environment file's text: sorted KEY=value lines, quoted so that sh reads them as well.

    Raises OperatorError for a name no shell takes and for a value with a newline; no message shows a value.
    """
    lines = []
    for name, value in sorted(environment.items()):
        if not layout.VARIABLE.fullmatch(str(name)):
            raise OperatorError(
                f"celery_app_environment/celery_app_secrets: '{name}' is not a name for an environment variable; "
                "use letters, digits and _, not starting with a digit."
            )
        text = str(value)
        if "\n" in text or "\r" in text or "\0" in text:
            raise OperatorError(
                f"celery_app_environment/celery_app_secrets: the value of {name} holds a newline. "
                "An environment file has one line a variable; encode the value (base64, JSON) instead."
            )
        lines.append(f"{name}={shlex.quote(text)}\n")
    return "".join(lines)


def environment_file(app: str, text: str) -> Path:
    """Return where the environment file of this text is: one of its own for every content."""
    return Layout(app).environment_file(hashlib.sha256(text.encode()).hexdigest()[:12])
