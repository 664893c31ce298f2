"""Which version of RabbitMQ wrote the data on a host, and whether the package that is to run can start on it.

Nothing is asked of a running broker: a node writes the feature flags that it has enabled into a file beside its data,
and refuses to start where one is missing that its version requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import RABBITMQ_DATA
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import PACKAGES, run

Version = tuple[int, int]
"""Major and minor: no patch release changes what a version can start on."""

DATA = RABBITMQ_DATA / "mnesia"
FLAGS: dict[str, Version] = {
    "message_containers": (3, 13),
    "restart_streams": (3, 12),
    "stream_single_active_consumer": (3, 11),
    "classic_mirrored_queue_version": (3, 10),
    "stream_queue": (3, 9),
    "quorum_queue": (3, 8),
}
"""A feature flag of each version; from 4.0 on each brings one of its own name."""
OLDEST: dict[Version, Version] = {
    (4, 3): (4, 2),
    (4, 0): (3, 13),
    (3, 13): (3, 12),
    (3, 12): (3, 11),
    (3, 11): (3, 8),
}
"""By the version from which on it is so: the oldest one whose data a node can start on."""
NEXT_DEBIAN = {"12": ("13", "4.0")}
"""By a release of Debian: the next one, and its RabbitMQ."""


def version_of(text: str) -> Version | None:
    """Return major and minor of a version of the package or of RabbitMQ."""
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def data_version(flags: str) -> Version | None:
    """Return the version that data are of, by the text of the file of enabled feature flags; None if it can't tell."""
    names = re.findall(r"[\w.]+", flags)
    own = [version for name in names if (version := version_of(name.removeprefix("rabbitmq_")))]
    known = [version for name, version in FLAGS.items() if name in names]
    return max([*own, *known], default=None)


def starts_on(package: Version, data: Version) -> bool:
    """Whether a node of that version starts on data of another: not on too old ones, and never on newer ones."""
    return needed_for(package) <= data <= package


def needed_for(package: Version) -> Version:
    """Return the oldest version whose data a node of that version starts on."""
    return next((oldest for since, oldest in OLDEST.items() if package >= since), (3, 8))


def text(version: Version) -> str:
    """Return a version as it is written."""
    return ".".join(map(str, version))


@dataclass(frozen=True)
class Versions:
    """What is known of RabbitMQ on a host; empty or None for what is not there."""

    node: str = ""
    data: Version | None = None
    installed: str = ""
    """The package's version."""
    candidate: str = ""
    """The version that apt would install, or upgrade to."""
    held: bool = False
    """Whether apt was told to keep the installed one."""
    debian: str = ""

    @property
    def cannot_start(self) -> str:
        """Why the package that is installed, or is to be, can't start on the data; empty if it can."""
        package, how = (self.installed, "is installed") if self.installed else (self.candidate, "would be installed")
        wanted = version_of(package)
        if not self.data or not wanted or starts_on(wanted, self.data):
            return ""
        why = (
            f"it needs data of {text(needed_for(wanted))} or newer"
            if self.data < wanted
            else "it can't read data of a newer version"
        )
        of = text(self.data)
        return f"RabbitMQ {package} {how}, and can't start on the data of {self.node}, which are of {of}: {why}"

    @property
    def cannot_upgrade(self) -> str:
        """Why the next upgrade of the package would end in a broker that can't start; empty if it would not."""
        now, then = version_of(self.installed), version_of(self.candidate)
        if self.held or not now or not then or then <= now or starts_on(then, now):
            return ""
        return f"apt would upgrade RabbitMQ {text(now)} to {text(then)}, which can't start on its data"

    @property
    def before_next_debian(self) -> str:
        """What is to be known before the host's Debian is upgraded; empty for nothing."""
        now, (debian, rabbitmq) = version_of(self.installed), NEXT_DEBIAN.get(self.debian, ("", ""))
        then = version_of(rabbitmq)
        if not now or not then or starts_on(then, now):
            return ""
        return f"RabbitMQ {text(now)} can't be upgraded in place to the {rabbitmq} of Debian {debian}"


def cannot_follow(found: Versions) -> str:
    """Why the version that apt has can't follow the installed one in place; empty if it can."""
    now, then = version_of(found.installed), version_of(found.candidate)
    if not now or not then:
        return ""
    why = "" if starts_on(then, found.data or now) else f"it starts on data of {text(needed_for(then))} and newer"
    why = "it is older" if then < now else why
    return f"RabbitMQ {found.candidate} can't follow {found.installed}: {why}" if why else ""


def versions(node: str, debian: str = "", data: Path = DATA) -> Versions:
    """Return what this host has; `node` is the name of the broker's node."""
    package = PACKAGES["rabbitmq"]
    rc, out = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package)
    installed = out.partition(" ")[2] if rc == 0 and out.startswith("installed ") else ""
    flags = data / f"{node}-feature_flags"
    return Versions(
        node,
        data_version(flags.read_text()) if flags.is_file() else None,
        installed,
        candidate_in(run("apt-cache", "policy", package)[1].splitlines()),
        package in run("apt-mark", "showhold", package)[1].split(),
        debian,
    )


def candidate_in(policy: Iterable[str]) -> str:
    """Return the candidate that `apt-cache policy` names; empty for none."""
    found = (line.strip().removeprefix("Candidate: ") for line in policy if line.strip().startswith("Candidate: "))
    name = next(found, "")
    return "" if name == "(none)" else name


def nodes(data: Path = DATA) -> list[str]:
    """Return the nodes that have data on this host."""
    names = (path.name for path in data.glob("*@*") if path.is_dir())
    return sorted(name for name in names if not name.endswith("-plugins-expand"))
