"""Choose the deployment that a rollback goes to: once, for all hosts of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import ADOPTED
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import uses_tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import deployment_id

History = Mapping[str, Any]
"""What `release: state=history` answers for a host."""

USABLE = ("good", "built")


@dataclass
class Target:
    """Where the rollback goes."""

    deployment: str
    """Empty for a release that is in no record."""
    release: str
    requirements: str = ""
    """The lock file inside its source."""
    without_record: list[str] = field(default_factory=list)
    """Hosts that never had this deployment: they get its release with the inventory's settings."""
    without_release: list[str] = field(default_factory=list)
    """Those of them that have to build it."""
    peer: str = ""
    """A host that has it built."""
    previous: str = ""
    """The deployment before it."""
    lone_schedulers: list[str] = field(default_factory=list)
    """Hosts that had a scheduler without the lease in it."""


def choose(histories: Mapping[str, History], wanted: str = "") -> Target:
    """Return the target: the release that is asked for, or the deployment before the current one.

    Where a deploy stopped half-way on any host, that is the one that is still current. Raises OperatorError.
    """
    records = merged(histories)
    currents = [history["current"] for history in histories.values()]
    # A host that was added since has a deployment of its own, with no past: it follows the others.
    current = newest((one for one in currents if records.get(one, {}).get("previous")), records) or newest(
        currents, records
    )
    drafts = [history["draft"] for history in histories.values() if history["draft"].get("begun")]
    half_way = [draft for draft in drafts if not is_over(draft, current, records)]
    if wanted:
        deployment, release = named(wanted, records, current, bool(half_way), histories)
    elif half_way:
        deployment = newest((draft.get("target", "") for draft in half_way), records) or current
        if not deployment:
            raise OperatorError(
                "The first deploy did not end, and there is no deployment before it. Complete it: "
                "ansible-playbook playbooks/deploy.yml"
            )
        release = records[deployment]["release"]
    else:
        refuse_after_failure(histories, records, current)
        deployment, release = before(current, records, histories)
    target = Target(deployment, release, previous=records.get(deployment, {}).get("previous", ""))
    for host, history in histories.items():
        if history["records"].get(deployment, {}).get("lone_scheduler"):
            target.lone_schedulers.append(host)
        note = history["releases"].get(release, {})
        if deployment not in history["records"]:
            target.without_record.append(host)
            if note.get("status") not in USABLE:
                target.without_release.append(host)
        if note.get("status") in USABLE:
            target.peer, target.requirements = host, note.get("requirements", "")
    return target


def without_certificate(histories: Mapping[str, History], release: str) -> list[str]:
    """Return the hosts on which a release, as one that an earlier version built, has no certificate to show."""
    return [
        host
        for host, history in histories.items()
        if release in history["releases"] and not history["releases"][release].get("shows_certificate")
    ]


def merged(histories: Mapping[str, History]) -> dict[str, dict[str, Any]]:
    """Return the records of all hosts; of two deployments before, the one that more hosts know.

    One that a host was added with has no past, and is not what ran before: it counts last.
    """
    known = Counter(name for history in histories.values() for name in history["records"])
    records: dict[str, dict[str, Any]] = {}
    ranks: dict[str, tuple[bool, int]] = {}
    for history in histories.values():
        for name, record in history["records"].items():
            earlier = record["previous"]
            rank = (bool(history["records"].get(earlier, {}).get("previous")), known[earlier])
            if name not in records or rank > ranks[name]:
                records[name], ranks[name] = record, rank
    return records


def newest(deployments: Iterable[str], records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the one of these deployments that went live last; empty when none has a record.

    One that comes before another in the chain is the older one, also where a clock was set back between them.
    """
    known = [deployment for deployment in dict.fromkeys(deployments) if deployment in records]
    older = {earlier for deployment in known for earlier in earlier_ones(deployment, records)}
    last = [deployment for deployment in known if deployment not in older]
    return max(last or known, key=lambda deployment: records[deployment].get("live_at") or 0.0, default="")


def earlier_ones(deployment: str, records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the deployments before this one, as far as there are records."""
    found: set[str] = set()
    while (deployment := records.get(deployment, {}).get("previous", "")) and deployment not in found:
        found.add(deployment)
    return found


def named(
    wanted: str,
    records: Mapping[str, Mapping[str, Any]],
    current: str,
    half_way: bool,
    histories: Mapping[str, History],
) -> tuple[str, str]:
    """Return the newest deployment of a release; without one, the release alone."""
    of_release = [name for name, record in records.items() if record["release"] == wanted]
    others = [name for name in of_release if name != current or half_way]
    if found := newest(others or of_release, records):
        return found, wanted
    if any(history["releases"].get(wanted, {}).get("status") in USABLE for history in histories.values()):
        return "", wanted
    raise OperatorError(f"celery_app_release is {wanted}: no host has it. {offer(histories)}")


def before(current: str, records: Mapping[str, Mapping[str, Any]], histories: Mapping[str, History]) -> tuple[str, str]:
    """Return the deployment before the current one; of hosts that an older kit set up, the good release before."""
    previous = records[current]["previous"] if current else ""
    if previous in records:
        return previous, records[previous]["release"]
    releases: dict[str, dict[str, Any]] = {}
    for history in histories.values():
        releases.update(history["releases"])
    runs = {history["release"] for history in histories.values()}
    good = [name for name, note in releases.items() if note.get("status") == "good" and name not in runs]
    if not previous and current and current != ADOPTED:
        good = []  # the first deployment of all: an older good release is one that was rolled back
    if good:
        return "", max(good, key=lambda name: releases[name].get("good_at") or 0.0)
    raise OperatorError(f"There is no earlier deployment to roll back to. {offer(histories)}")


def refuse_after_failure(
    histories: Mapping[str, History], records: Mapping[str, Mapping[str, Any]], current: str
) -> None:
    """Raise OperatorError where the last deploy failed and was taken back: whoever types rollback may not know that.

    The last one of all hosts: a host that took no part in it still ends its log with an earlier one.
    """
    last = max(filter(None, (history["last"] for history in histories.values())), key=time_of, default={})
    if last.get("action") == "deploy" and str(last.get("outcome", "")).startswith("failed") and current:
        previous = records[current]["previous"]
        further = records[previous]["release"] if previous in records else "<release>"
        raise OperatorError(
            f"The last deploy (release {last.get('to')}, {last.get('at')}) failed and was rolled back: release "
            f"{records[current]['release']}, which ran before it, runs again. Nothing was changed. To roll back "
            f"further: ansible-playbook playbooks/rollback.yml -e celery_app_release={further}"
        )


def time_of(entry: Mapping[str, Any]) -> float:
    """Return when an entry of the audit log was written; 0 where it does not say so."""
    with suppress(ValueError):
        return datetime.fromisoformat(str(entry.get("at", ""))).timestamp()
    return 0.0


def is_over(draft: Mapping[str, Any], current: str, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether another deployment has gone live on other hosts since: the draft's host took no part in it."""
    live_at = records.get(current, {}).get("live_at") or 0.0
    return draft.get("id") != current and live_at > draft.get("began", live_at)


def offer(histories: Mapping[str, History]) -> str:
    """Return all releases of all hosts with their status, and how to go to one of them."""
    known = {
        name: note.get("status", "?") for history in histories.values() for name, note in history["releases"].items()
    }
    listing = ", ".join(f"{name} ({status})" for name, status in sorted(known.items())) or "none"
    runs = {history["release"] for history in histories.values()}
    others = [name for name in known if known[name] in USABLE and name not in runs]
    how = " Name one: ansible-playbook playbooks/rollback.yml -e celery_app_release=<release>" if others else ""
    return f"Releases: {listing}.{how}"


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node, once for all hosts of the play."""

    def act(self) -> dict[str, Any]:
        """Return the target, and where the control node has, or may put, the release's packed source."""
        hosts = self.variables["ansible_play_hosts_all"]
        histories = {host: self.variables["hostvars"][host]["__celery_app_history"] for host in hosts}
        target = choose(histories, str(self._task.args.get("release", "")))
        verifies = boolean(self.variables["celery_app_tls_verify_clients"]) and uses_tls(self.variables, "rabbitmq")
        if verifies and (found := without_certificate(histories, target.release)):
            raise OperatorError(
                f"celery_app_tls_verify_clients is true, and release {target.release} shows the broker no certificate "
                f"({', '.join(found)}). Nothing was changed. Set the variable to false, and type: ansible-playbook "
                "playbooks/site.yml; then type this again"
            )
        archive = Path(str(self._task.args["cache"])).expanduser() / f"{target.release}.tar.gz"
        return {
            "changed": False,
            "id": deployment_id(),
            **asdict(target),
            "archive": str(archive),
            "is_packed": archive.exists(),
        }
