"""Tell people and tools of a deploy: who, what, how it ended. A notice that can't be sent never fails a deploy."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EVENTS = ("started", "finished", "failed", "rolled_back", "died")
WATCHDOG = "watchdog"
"""What a host's watchdog did: an event for those targets alone that name it, as their secrets are on the hosts then."""
KINDS = ("webhook", "command", "grafana", "sentry")
DEADLINE = 5
"""Seconds that a target has."""
LINES = 20
"""Lines of what changed, at most."""


@dataclass(frozen=True)
class Notice:
    """What happened. No secret is in it."""

    event: str
    app: str
    who: str
    action: str = "deploy"
    release: str = ""
    stage: str = ""
    hosts: list[str] = field(default_factory=list)
    detail: str = ""
    """What failed, in a line."""
    changes: list[str] = field(default_factory=list)
    """The commits that it brings, newest first; of the watchdog, what it did."""

    @property
    def title(self) -> str:
        """The notice in a line."""
        said = {
            "started": f"{self.action} started",
            "finished": f"{self.action} finished",
            "failed": f"{self.action} FAILED",
            "rolled_back": "rolled back",
            "died": f"{self.action} DIED: the run ended without a result",
            WATCHDOG: "the watchdog acted",
        }[self.event]
        place = f" ({self.stage})" if self.stage else ""
        release = f", release {self.release}" if self.release else ""
        return f"{self.app}{place}: {said}{release}, {'on' if self.event == WATCHDOG else 'by'} {self.who}"

    @property
    def text(self) -> str:
        """The notice in several."""
        return "\n".join([self.title, *([self.detail] if self.detail else []), *self.changes])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to the host that it is for, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def kind_of(target: Mapping[str, Any]) -> str:
    """Return which kind a target is of; empty for none."""
    return next((kind for kind in KINDS if target.get(kind)), "")


def name_of(number: int, target: Mapping[str, Any]) -> str:
    """Return what a target is called in a message: a webhook's URL is a secret, its host is not."""
    kind = kind_of(target)
    where = (
        shlex.split(target[kind])[:1] if kind == "command" else [urlsplit(str(target.get(kind, ""))).hostname or "?"]
    )
    return f"celery_app_notify[{number}] ({kind} {' '.join(where)})"


def requests_of(target: Mapping[str, Any], notice: Notice, now: float) -> list[tuple[str, dict[str, Any]]]:
    """Return the requests that a target wants for a notice: URLs, and what is posted there."""
    kind = kind_of(target)
    if kind == "webhook":
        return [(target["webhook"], {"text": notice.text})]
    if kind == "grafana":
        tags = [
            "watchdog" if notice.event == WATCHDOG else "deploy",
            notice.app,
            notice.event,
            *([notice.stage] if notice.stage else []),
        ]
        url = f"{str(target['grafana']).rstrip('/')}/api/annotations"
        return [(url, {"time": int(now * 1000), "tags": tags, "text": notice.text})]
    # Sentry has releases that are in service, not attempts.
    if kind != "sentry" or notice.event not in ("finished", "rolled_back"):
        return []
    base = f"{str(target['sentry']).rstrip('/')}/api/0/organizations/{target['organization']}/releases/"
    version = f"{notice.app}@{notice.release}"
    deploy = {"environment": notice.stage or "production", "name": notice.title}
    return [(base, {"version": version, "projects": list(target["projects"])}), (f"{base}{version}/deploys/", deploy)]


def send(target: Mapping[str, Any], notice: Notice, deadline: float) -> None:
    """Send a notice to one target. Raises OSError, and subprocess.SubprocessError."""
    ends = time.monotonic() + deadline
    if kind_of(target) == "command":
        known = {f"CELERY_OPS_{key.upper()}": " ".join(value) if isinstance(value, list) else str(value)
                 for key, value in asdict(notice).items() if key != "changes"}  # fmt: skip
        subprocess.run(
            shlex.split(target["command"]), input=f"{notice.text}\n", text=True, capture_output=True, check=True,
            timeout=deadline, env={**os.environ, **known},
        )  # fmt: skip
        return
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {target['token']}"} if target.get("token") else {}
    )
    opener = urllib.request.build_opener(_NoRedirect)
    for url, body in requests_of(target, notice, time.time()):
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with opener.open(request, timeout=max(0.1, ends - time.monotonic())) as answer:
            answer.read(65536)


def why(error: Exception) -> str:
    """Return why a notice was not sent, without the URL, the command's output or anything else that may be secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}"
    if isinstance(error, subprocess.TimeoutExpired):
        return "it takes too long"
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with status {error.returncode}"
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {getattr(reason, 'strerror', None) or 'no answer'}"


def send_all(targets: Iterable[Mapping[str, Any]], notice: Notice) -> list[str]:
    """Send a notice to all targets that want it, at once; return a line for each that did not take it in time."""
    problems: dict[str, str] = {}

    def one(name: str, target: Mapping[str, Any], deadline: float) -> None:
        try:
            send(target, notice, deadline)
            del problems[name]
        except Exception as error:
            problems[name] = why(error)

    threads = []
    for number, target in enumerate(targets):
        if notice.event in (target.get("events") or EVENTS):
            name, deadline = name_of(number, target), float(target.get("timeout") or DEADLINE)
            problems[name] = f"no answer within {deadline:g} s"
            # A server that answers a byte at a time keeps a thread, and not the deploy.
            threads.append((threading.Thread(target=one, args=(name, target, deadline), daemon=True), deadline))
    ends = time.monotonic()
    for thread, _ in threads:
        thread.start()
    for thread, deadline in threads:
        thread.join(max(0.0, ends + deadline + 0.5 - time.monotonic()))
    return [f"{name} got no notice: {reason}." for name, reason in dict(problems).items()]


def of_hosts(targets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the targets that are told what the watchdog did."""
    return [dict(target) for target in targets if WATCHDOG in (target.get("events") or [])]


def changes(log: Iterable[str], most: int = LINES) -> list[str]:
    """Return the lines of a git log, no more than `most`, and how many more there are."""
    lines = [line.strip()[:120] for line in log if line.strip()]
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]


def _mark(run: str) -> Path:
    return Path(tempfile.gettempdir(), f"celery-ops-{os.getuid()}", f"{run}.ended")


def mark_ended(run: str) -> None:
    """Note that the end of a run was told, so that its keeper does not tell it again."""
    mark = _mark(run)
    mark.parent.mkdir(mode=0o700, exist_ok=True)
    mark.touch()


def was_told(run: str) -> bool:
    """Tell whether the end of a run was told; once."""
    mark = _mark(run)
    was_there = mark.exists()
    mark.unlink(missing_ok=True)
    return was_there
