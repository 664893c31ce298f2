"""Debian's packages of the services, and which of them the kit installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import explained
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import KIT_STATE

PACKAGES = {"rabbitmq": "rabbitmq-server", "result_store": "redis-server", "supervisor": "supervisor"}
FIREWALL = ("nftables", "/etc/nftables.conf")
"""The package that the kit's rules need, and the file with everybody else's, which a purge removes."""
RECORD = KIT_STATE / "packages.json"
"""The packages that the kit installed: it removes no other."""
ON_HOST = ("installed", "half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")
"""dpkg's states of a package whose files are there, also of one that does not start or is being upgraded."""
TIMEOUT = 60  # seconds that a service has to answer


def run(
    *words: str, stdin: str = "", timeout: float = TIMEOUT, errors: bool = False, **environment: str
) -> tuple[int, str]:
    """Return exit code and output of a command, with what it says on stderr where it fails, or if `errors`."""
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **environment},
        )
    except FileNotFoundError:
        return 127, f"{words[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{words[0]} did not answer within {timeout} s"
    return done.returncode, done.stdout + (done.stderr if done.returncode or errors else "")


def carry_out(*words: str) -> None:
    """Run a command that has to succeed. Raises OperatorError with what it says."""
    rc, out = run(*words)
    if rc:
        raise OperatorError(explained(f"{' '.join(words)} ended with {rc}: {out.strip()}"))


def is_installed(service: str, states: Collection[str] = ("installed",)) -> bool:
    """Tell whether Debian's package of the service is installed, or in one of these states."""
    rc, out = run("dpkg-query", "-W", "-f", "${db:Status-Status}", PACKAGES[service])
    return rc == 0 and out in states


def was_there_before(service: str) -> bool:
    """Tell whether the service's package is on the host, in whatever state, and not by the kit."""
    return is_installed(service, ON_HOST) and not from_kit(service)


def from_kit(service: str) -> bool:
    """Tell whether the kit installed the service's package."""
    return PACKAGES[service] in read_json(RECORD).get("packages", [])


def other_rules() -> list[str]:
    """Return where rules of a firewall are that is somebody else's, if they would go with the package by the kit."""
    package, conf = FIREWALL
    is_ours = package in read_json(RECORD).get("packages", [])
    return [f"nftables: {conf} is not as the package brought it"] if is_ours and changed_conffile(*FIREWALL) else []


def changed_conffile(package: str, conf: str) -> bool:
    """Tell whether a file of the package's configuration differs from what the package brought."""
    listed = run("dpkg-query", "-W", "-f", "${Conffiles}", package)[1]
    sums = {words[0]: words[1] for words in map(str.split, listed.splitlines()) if len(words) > 1}
    path = Path(conf)
    return path.exists() and conf in sums and hashlib.md5(path.read_bytes()).hexdigest() != sums[conf]
