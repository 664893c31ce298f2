"""The verb `soak`: whether it may generate its load, its commands, and what to say of the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils.verbs import results_of

PUBLISHED, EXECUTED, RECONCILED = "__celery_app_published", "__celery_app_executed", "__celery_app_reconciled"
"""What earlier tasks of the run registered."""
RATE, DURATION, TASKS = 200, 3600, 50_000
"""At most."""
PATIENCE = (10, 3600)


def soak(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is `wrong` with what is asked, its commands, and the `text` to show, as far as the run has come."""
    published = (variables.get(PUBLISHED) or {}).get("stdout")
    run = json.loads(published)["run"] if published else ""
    ledger = Layout(str(variables["celery_app_name"])).ledger
    reconciled = variables.get(RECONCILED) or {}
    return {
        "wrong": mistake(variables),
        "publish": [
            *("celery-ops-soak", "publish", "-A", str(variables["celery_app_module"])),
            *("--queue", str(variables["celery_app_soak_queue"])),
            *("--rate", str(variables["celery_app_soak_rate"])),
            *("--duration", str(variables["celery_app_soak_duration"])),
        ],
        "collect": [
            "celery-ops-soak",
            "collect",
            "--run",
            run,
            "--patience",
            str(variables["celery_app_soak_patience"]),
        ],
        "reconcile": ["celery-ops-soak", "reconcile", "--run", run],
        "executed": "\n".join(answer["stdout"] for answer in results_of(variables, EXECUTED).values()),
        "files": [f"{ledger}/{run}", f"{ledger}/{run}.json"] if run else [],
        "text": text(reconciled, f"{ledger}/{run}"),
    }


def mistake(variables: Mapping[str, Any]) -> str:
    """Return why no load may be generated; empty where it may."""
    rate, duration, patience = (variables[f"celery_app_soak_{name}"] for name in ("rate", "duration", "patience"))
    is_production = variables["celery_app_stage"] == "production"
    if is_production and variables["celery_app_soak_on_production"] != "yes":
        return (
            f"celery_app_stage is production, and this would put {rate} tasks a second for {duration} s among your "
            "own. Nothing was sent. If this is staging, say celery_app_stage: staging in its inventory; to do it on "
            "production nevertheless, add -e celery_app_soak_on_production=yes"
        )
    per_second, seconds, least = number(rate), number(duration), number(patience)
    fits = 0 < per_second <= RATE and 1 <= seconds <= DURATION and per_second * seconds <= TASKS
    if fits and PATIENCE[0] <= least <= PATIENCE[1]:
        return ""
    return (
        f"celery_app_soak_rate is {rate}, it may be up to {RATE} tasks a second; celery_app_soak_duration is "
        f"{duration}, it may be 1 to {DURATION} seconds, and both may make {TASKS:,} tasks; celery_app_soak_patience "
        f"is {patience}, it may be {PATIENCE[0]} to {PATIENCE[1]} seconds "
        "(-e celery_app_soak_rate=20 -e celery_app_soak_duration=60)."
    )


def number(value: Any) -> float:
    """Return a number, also one in a text; 0 for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def text(answer: Mapping[str, Any], executed: str) -> str:
    """Return what the ledger says, and where to look where confirmed tasks are lost; else why it says nothing."""
    if not answer.get("stdout"):
        return str(answer.get("msg") or "")
    counted = json.loads(answer["stdout"])
    said = (
        f"{counted['confirmed']} of {counted['attempted']} tasks were confirmed: {len(counted['lost'])} lost, "
        f"{len(counted['doubled'])} doubled, {counted['rerun']} run again; waited {counted['wait_p50']} s (median), "
        f"{counted['wait_max']} s (longest); 99 of 100 publishes were confirmed within "
        # A release of an earlier version does not say these three.
        f"{counted.get('confirm_p99', '?')} s, at most {counted.get('stall', '?')} s without a confirm, "
        f"{counted.get('standstill', '?')} s without a task begun; "
        f"{counted['without_consumer']} of {counted['samples']} samples without a consumer."
    )
    if not counted["lost"]:
        return said
    lost = ", ".join(map(str, counted["lost"]))
    return f"{said} The lost ones: {lost}. What ran is in {executed} on every worker host."
