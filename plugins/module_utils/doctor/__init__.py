"""Checks of a host: each a small function of the facts, which are read once. They change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

PASS, WARN, FAIL, SKIP, ACCEPTED = "pass", "warn", "fail", "skip", "accepted"
ORDER = (FAIL, WARN, ACCEPTED, SKIP, PASS)
"""What is shown first."""


@dataclass(frozen=True)
class Finding:
    """What a check found: the level, what was seen, and the command or line that fixes it."""

    level: str
    evidence: str
    fix: str = ""
    id: str = ""


def fine(evidence: str) -> Finding:
    """The check passes."""
    return Finding(PASS, evidence)


def warn(evidence: str, fix: str) -> Finding:
    """Something to look at in working hours."""
    return Finding(WARN, evidence, fix)


def fail(evidence: str, fix: str) -> Finding:
    """Something that loses tasks, lets others in, or will stop the application."""
    return Finding(FAIL, evidence, fix)


def skip(reason: str) -> Finding:
    """Nothing to check here."""
    return Finding(SKIP, reason)


def judge(bad: bool, evidence: str, fix: str, level: str = FAIL) -> Finding:
    """Return a finding of that level where something is bad; with the fix, which nobody needs otherwise."""
    return Finding(level, evidence, fix) if bad else fine(evidence)


@dataclass(frozen=True)
class Check:
    """A registered check."""

    id: str
    needs: str
    """The part of the facts without which it is skipped."""
    run: Callable[[Any], Finding]
    silent: str = ""
    """Why it is skipped where that part did not answer."""


CHECKS: list[Check] = []
ABSENT = {
    "broker": "no RabbitMQ of the kit on this host",
    "store": "no Redis of the kit on this host",
    "supervisor": "no program of the application on this host",
    "inspection": "no release on this host",
    "control": "checked on the control node",
    "host": "checked on the host",
}
"""Why a check is skipped, by the part of the facts that is missing."""


def check(name: str, needs: str, silent: str = "") -> Callable[[Callable[[Any], Finding]], Callable[[Any], Finding]]:
    """Decorate a check; `needs` is the part of the facts that it looks at.

    With `silent`, it is skipped for that reason where the part did not answer: one check of its own fails then.
    """

    def register(run: Callable[[Any], Finding]) -> Callable[[Any], Finding]:
        CHECKS.append(Check(name, needs, run, silent))
        return run

    return register


def examine(facts: Any, accepted: Iterable[str] = ()) -> list[Finding]:
    """Return what every check found, the worst first; what was `accepted` does not count."""
    found = [_run(one, facts) for one in CHECKS]
    taken = set(accepted)
    found = [replace(one, level=ACCEPTED) if one.id in taken and one.level in (WARN, FAIL) else one for one in found]
    return sorted(found, key=lambda one: ORDER.index(one.level))


def _run(one: Check, facts: Any) -> Finding:
    if getattr(facts, one.needs) is None:
        return Finding(SKIP, ABSENT[one.needs], id=one.id)
    if one.silent and getattr(facts, one.needs).refused:
        return Finding(SKIP, one.silent, id=one.id)
    try:
        return replace(one.run(facts), id=one.id)
    except Exception as error:  # one check that can't be made must not hide the others
        evidence = f"this could not be checked: {type(error).__name__}: {error}"
        return Finding(WARN, evidence, "look at it by hand, and report this text", one.id)


def count(found: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each level."""
    levels = [one.level for one in found]
    return {level: levels.count(level) for level in ORDER}


def text(found: list[Finding], where: str, everything: bool = False) -> list[str]:
    """Return the findings for people: failures first, then warnings, and a line with the counts."""
    lines = []
    for one in found:
        if one.level in (FAIL, WARN):
            lines += [f"{one.level.upper()}  {one.id}: {one.evidence}", f"      fix: {one.fix}"]
        elif everything or one.level == ACCEPTED:
            lines.append(f"{one.level}  {one.id}: {one.evidence}")
    counts = count(found)
    said = ", ".join(f"{counts[level]} {level}" for level in (FAIL, WARN, PASS, SKIP, ACCEPTED) if counts[level])
    return [*lines, f"doctor of {where}: {len(found)} checks: {said}"]
