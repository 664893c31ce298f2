"""What a run says at its end: what failed on any host, or what runs and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils import host_module
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import release_of_run
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts

FAILURE, CHECK, PAGE = "__celery_app_failure", "__celery_app_check", "__celery_app_page"
"""What earlier tasks of the run registered."""
LOST = {"phase": "", "task": "", "program": "", "reason": host_module.LOST, "release_fault": False}
"""A host that was lost: its failure has no phase."""


def failures(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what failed so far in this deploy, on any host; one that can't be reached any more has failed too.

    Hosts that failed themselves come before those where a task of a hook failed that runs once for all.
    """
    known = [variables["hostvars"][host].get(FAILURE) for host in app_hosts(variables["groups"])]
    seen = sorted((dict(one) for one in known if one), key=lambda one: one.get("elsewhere", False))
    reached = {*variables["ansible_play_hosts"], *(failure["host"] for failure in seen)}
    return seen + [lost(host) for host in variables["ansible_play_hosts_all"] if host not in reached]


def lost(host: str) -> dict[str, Any]:
    """Return the failure of a host that is lost."""
    return {"host": host, **LOST}


def failure_summary(found: list[dict[str, Any]]) -> str:
    """Return a line about the first failure."""
    first = found[0]
    reason = (first["reason"].splitlines() or [""])[0]
    return f"{first['phase'] or 'connection'} on {first['host']}: {reason}"


def ended_by(variables: Mapping[str, Any]) -> str:
    """Return which host ended the run, and why: this one, or another one whose failure has ended it here as well."""
    for host in dict.fromkeys([variables["inventory_hostname"], *variables["ansible_play_hosts_all"]]):
        if result := variables["hostvars"][host].get("ansible_failed_result"):
            return f"on {host}: {result.get('msg') or 'no reason given; run it again with -v'}"
    return "on another host: see above"


def summary(variables: Mapping[str, Any]) -> list[str]:
    """Return what runs, and what to type next."""
    app = variables["celery_app_name"]
    found = (variables.get(CHECK) or {}).get("found", {})
    # A release that an older version of the kit has built does not say which it is.
    release = release_of_run(variables) or found.get("release") or "current"
    return [
        f"{app} runs on {variables['inventory_hostname']}, release {release}.",
        f"Page:         {page(variables)}",
        f"Round trip:   {round_trip(found)}",
        f"Scheduler:    {ticks(found)}",
        f"Credentials:  {variables['celery_app_secrets_dir']} (control node), {Layout(app).environment_link} (host)",
        f"Logs:         {Layout(app).log}/",
        "Status:       supervisorctl status",
        "Check again:  ansible-playbook playbooks/check.yml",
        "Deploy:       ansible-playbook playbooks/deploy.yml",
    ]


def page(variables: Mapping[str, Any]) -> str:
    """Return the page's URL, and whether its task waits."""
    if "web" not in variables["group_names"] or not variables["celery_web_command"]:
        return "none: no web program"
    address, _, port = str(variables["celery_web_bind"]).rpartition(":")
    if own_address(address.strip("[]")) != address.strip("[]"):
        address = variables["inventory_hostname"]  # it listens on all addresses of the host
    url = f"http://{address}:{port}{variables['celery_app_check_url']}"
    waits = (variables.get(PAGE) or {}).get("busy")
    return f"{url} (answers 202: its task waits for a busy worker)" if waits else url


def round_trip(found: Mapping[str, Any]) -> str:
    """Return what the check found out about a task."""
    if found.get("busy"):
        return f"busy: {found['busy']}"
    return f"a task went to the worker and back in {found.get('round_trip')} s"


def ticks(found: Mapping[str, Any]) -> str:
    """Return what the check found out about the scheduler; a release of an older version of the kit says less."""
    return "its ticks arrive" if found.get("tick_age") is not None else found.get("tick") or "not asked"
