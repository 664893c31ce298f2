"""Celery's effective settings, as celery-ops-inspect reported them when the current release was built."""

from __future__ import annotations

from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, fine, judge
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import ANY_QUEUE, Facts

SETTINGS = {
    "celery-acks-late": ("task_acks_late", "fail"),
    "celery-reject-on-worker-lost": ("task_reject_on_worker_lost", "fail"),
    "celery-confirms": ("broker_transport_options", "fail"),
    "celery-always-eager": ("task_always_eager", "fail"),
    "celery-accept-content": ("accept_content", "fail"),
    "celery-result-content": ("result_accept_content", "fail"),
    "celery-broker-tls": ("broker_use_ssl", "fail"),
    "celery-redbeat-lock": ("redbeat_lock_key", "warn"),
    "celery-missing-settings": ("celery", "warn"),
}
"""By the check's id: the setting in the report's list `unsafe`, and how bad an unsafe value is."""


def _setting(name: str, setting: str, level: str) -> None:
    @check(name, "inspection")
    def safe(facts: Facts) -> Finding:
        """The setting loses no task and runs nothing that just anybody sent."""
        found = [one for one in facts.inspection.get("unsafe", []) if one["setting"] == setting]
        evidence = "; ".join(f"{setting} is {one['value']}" for one in found) or f"{setting} is safe"
        return judge(bool(found), evidence, "; ".join(one["write"] for one in found), level)


for _name, (_which, _level) in SETTINGS.items():
    _setting(_name, _which, _level)


@check("celery-kit-settings", "inspection")
def kit_settings(facts: Facts) -> Finding:
    """The application takes the kit's settings."""
    how = facts.inspection.get("settings", "")
    fix = 'in the application: app.config_from_object("celery_ops.settings") (docs/your-app.md)'
    return judge(not how, f"by {how}" if how else "it does not take celery_ops.settings", fix, "warn")


@check("celery-refused", "inspection")
def refused(facts: Facts) -> Finding:
    """Nothing in the release can't work."""
    found: list[dict[str, Any]] = facts.inspection.get("refused", [])
    fix = "; ".join(one["write"] for one in found)
    return judge(bool(found), "; ".join(one["problem"] for one in found) or "nothing", fix)


@check("celery-queues-consumed", "inspection")
def queues_consumed(facts: Facts) -> Finding:
    """A worker program consumes from each queue that the application sends tasks to."""
    sent = {facts.inspection.get("default_queue", ""), *facts.inspection.get("routes", [])} - {""}
    lonely = [] if ANY_QUEUE in facts.wanted.queues else sorted(sent - set(facts.wanted.queues))
    fix = f"celery_worker_programs: add {', '.join(lonely)} to the queues of one, then deploy"
    return judge(bool(lonely), f"nobody consumes from {', '.join(lonely)}" if lonely else "each has a worker", fix)


@check("celery-schedule", "inspection")
def schedule(facts: Facts) -> Finding:
    """A host schedules what the application wants to have scheduled."""
    entries = [name for name in facts.inspection.get("schedule", []) if not name.startswith("celery-ops-")]
    missing = bool(entries) and not facts.wanted.scheduler
    evidence = f"{len(entries)} entries" + (", and no host is in the group scheduler" if missing else "")
    return judge(missing, evidence, "write a host into the group scheduler, then: ansible-playbook playbooks/site.yml")


@check("celery-transport", "inspection")
def transport(facts: Facts) -> Finding:
    """The broker is one that confirms what it has taken."""
    kind = facts.inspection.get("broker", {}).get("transport", "")
    fix = "RabbitMQ (the group rabbitmq, or celery_app_broker_url: amqps://...): others lose tasks when they fail"
    return judge(kind not in ("amqp", "amqps", "pyamqp"), f"the transport is {kind}", fix, "warn")


@check("celery-results", "inspection")
def results(facts: Facts) -> Finding:
    """Results are not kept by the broker, a queue each."""
    kind = facts.inspection.get("backend", {}).get("kind", "")
    fix = "celery_app_result_backend: redis, or none"
    return (
        judge(kind in ("rpc", "amqp"), f"results go to {kind or 'nowhere'}", fix, "warn") if kind else fine("nowhere")
    )
