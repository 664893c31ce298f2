"""The verb `uninstall`: what it removes from a host, and what keeps it from doing so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import command

Known = Mapping[str, Any]


def uninstall(variables: Known) -> dict[str, str]:
    """Return why services must not go, as `wrong`, empty where they may or stay; and as `text` what will be removed."""
    return {"wrong": wrong(variables), "text": text(variables)}


def wrong(variables: Known) -> str:
    """Return what something else uses and uninstall_services=yes would remove; empty for nothing."""
    if not services_go(variables):
        return ""
    app, host = variables["preflight_app"], variables["inventory_hostname"]
    if others := variables["__preflight_users"]["others"]:
        return "\n".join(
            [
                f"Nothing was removed. On {host} something else uses what uninstall_services=yes would remove:",
                *(f"- {other}" for other in others),
                f"To remove {app} alone, type: {command('uninstall', same_hosts=True)} -e uninstall_services=no",
                "(or: make down SERVICES=no)",
            ]
        )
    if hosts := left_out(variables):
        return (
            f"Nothing was removed. {host} serves {hosts}, which --limit leaves out. To remove {app} from {host} alone, "
            "leave out uninstall_services=yes."
        )
    return ""


def text(variables: Known) -> str:
    """Return what will be removed, and what stays."""
    app, of_host, users = (variables[f"preflight_{name}"] for name in ("app", "services", "left_out"))
    layout = Layout(app)
    own = [
        "its programs",
        f"its directories ({layout.base}, {layout.etc}, {layout.log}, {layout.state})",
        "its system user",
    ]
    shared = {"rabbitmq": "its vhost with all tasks in it", "result_store": "its Redis user with its results"}
    own += [what for service, what in shared.items() if service in of_host and not users[service]]
    said = [f"Will be removed: the application {app} - {', '.join(own)}."]
    if hosts := left_out(variables):
        said.append(f"Its tasks and results stay for {hosts}.")
    if services_go(variables):
        services = ", ".join(variables["__preflight_users"]["from_kit"]) or "no service"
        said.append(f"Also {services} and the other packages that the kit installed, with all data.")
    else:
        said.append("RabbitMQ, Redis and Supervisor stay (uninstall_services=yes removes them too).")
    return " ".join(said)


def services_go(variables: Known) -> bool:
    """Tell whether the services are to go with the application."""
    return boolean(variables["preflight_uninstall_services"], strict=False)


def left_out(variables: Known) -> str:
    """Return the hosts that the run leaves out and that use a service of this one."""
    users = variables["preflight_left_out"]
    return ", ".join(dict.fromkeys([*users["rabbitmq"], *users["result_store"]]))
