"""Versions with known faults: a table, with its sources."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, judge, skip
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts


class Fault(NamedTuple):
    """A fault of a package: from which version on, and before which one."""

    package: str
    since: str
    fixed: str
    what: str
    source: str


DEBIANS = (
    Fault("rabbitmq-server", "3.10.8-1", "3.10.8-1.1+deb12u1", "CVE-2023-46118: a large body to the HTTP API takes all "
          "memory", "https://security-tracker.debian.org/tracker/CVE-2023-46118"),
    Fault("erlang-base", "1:25.2", "1:25.2.3+dfsg-1+deb12u1", "CVE-2025-32433: Erlang's SSH server runs commands "
          "without a login", "https://security-tracker.debian.org/tracker/CVE-2025-32433"),
    Fault("redis-server", "5:7.0", "5:7.0.15-1~deb12u6", "CVE-2025-49844: a Lua script of a user runs code in Redis",
          "https://security-tracker.debian.org/tracker/CVE-2025-49844"),
    Fault("redis-server", "5:8.0", "5:8.0.2-3+deb13u1", "CVE-2025-49844: a Lua script of a user runs code in Redis",
          "https://security-tracker.debian.org/tracker/CVE-2025-49844"),
    Fault("supervisor", "0", "3.3.3", "CVE-2017-11610: whoever reaches its socket runs commands as root",
          "https://github.com/Supervisor/supervisor/issues/964"),
)  # fmt: skip
"""Of Debian's packages, by Debian's versions."""
PYTHONS = (
    Fault("celery", "0", "5.2.2", "CVE-2021-23727: a forged result runs commands in the program that reads it",
          "https://nvd.nist.gov/vuln/detail/CVE-2021-23727"),
    Fault("celery", "0", "5.5", "no worker consumes from a quorum queue (global QoS)",
          "https://docs.celeryq.dev/en/stable/history/whatsnew-5.5.html"),
    Fault("celery", "5.5", "5.6", "queues that task_queues does not list are classic, in which an ETA blocks the "
          "worker", "https://docs.celeryq.dev/en/stable/history/whatsnew-5.6.html"),
    Fault("redis", "4.2", "4.5.4", "CVE-2023-28859: a cancelled command leaves its answer to the next one",
          "https://nvd.nist.gov/vuln/detail/CVE-2023-28859"),
)  # fmt: skip
"""Of Python's packages in the release."""


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    return tuple(int(one) for one in re.findall(r"\d+", re.match(r"[\d.]*", text)[0]))


def is_older(one: str, other: str) -> bool:
    """Tell whether Debian's version `one` is older than the other."""
    return subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0


@check("versions-debian", "host")
def debian(facts: Facts) -> Finding:
    """No package of the services has a fault that a newer one has not."""
    if not facts.host.packages:
        return skip("no package of the services on this host")
    found = [
        f"{one.package} {version}: {one.what} ({one.source})"
        for one in DEBIANS
        if (version := facts.host.packages.get(one.package))
        and not is_older(version, one.since)
        and is_older(version, one.fixed)
    ]
    names = ", ".join(f"{name} {version}" for name, version in sorted(facts.host.packages.items()))
    return judge(bool(found), "; ".join(found) or names, "apt-get update; apt-get install --only-upgrade PACKAGE")


@check("versions-python", "inspection")
def python(facts: Facts) -> Finding:
    """No package of the release has a known fault that matters here."""
    installed = facts.inspection.get("versions", {})
    found = [
        f"{one.package} {version}: {one.what} ({one.source})"
        for one in PYTHONS
        if (version := installed.get(one.package)) and numbers(one.since) <= numbers(version) < numbers(one.fixed)
    ]
    names = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()) if version)
    return judge(bool(found), "; ".join(found) or names, "raise it in celery_app_requirements, then deploy", "warn")
