"""How much of its concurrency and memory each program used, from the watchdog's samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

BUSY, IDLE = 0.8, 0.1
"""Shares of the slots above and below which a change is worth a thought."""
WAITS = 10.0
"""Seconds that the oldest task of a queue may wait, on average, before that is too long."""
FEW = 300
"""Seconds of samples below which nothing is advised."""


def numbers(column: Iterable[Any] | None) -> list[float]:
    """Return what is known in a column."""
    return [float(value) for value in column or () if value is not None]


def mean(column: Iterable[Any] | None) -> float:
    """Return the mean of what is known; 0 for nothing."""
    known = numbers(column)
    return sum(known) / len(known) if known else 0.0


def peak(column: Iterable[Any] | None) -> float:
    """Return the most that was seen; 0 for nothing."""
    return max(numbers(column), default=0.0)


def usage(seen: Mapping[str, Any], workers: Mapping[str, Mapping[str, Any]], free: float) -> dict[str, Any]:
    """Return a summary of the samples; `workers` has slots and queues of each program, `free` is memory in bytes."""
    queues = {
        name: {"ready": peak(of.get("ready")), "wait": mean(of.get("oldest")), "rate": mean(of.get("rate"))}
        for name, of in (seen.get("queues") or {}).items()
    }
    samples, every = len(seen.get("times") or []), seen.get("every") or 0
    programs = {}
    for name, of in (seen.get("programs") or {}).items():
        worker = workers.get(name) or {}
        found = {
            "slots": worker.get("slots") or 0,
            "active": mean(of.get("active")),
            "peak": peak(of.get("most") or of.get("active")),
            "memory": peak(of.get("memory")),
            "queues": sorted(worker.get("queues") or ()),
        }
        if found["slots"]:
            found["advice"] = advice(name, found, queues, free) if samples * every >= FEW else ""
        programs[name] = found
    return {"samples": samples, "every": every, "queues": queues, "programs": programs}


def advice(name: str, found: Mapping[str, Any], queues: Mapping[str, Mapping[str, float]], free: float) -> str:
    """Return what to change for a worker program, and the line to write; empty where nothing is to change."""
    slots, share = found["slots"], found["active"] / found["slots"]
    waiting = [queue for queue in found["queues"] if queue in queues and queues[queue]["wait"] >= WAITS]
    entry = name.partition("-worker-")[2]
    if waiting and share >= BUSY:
        more = math.ceil(slots * 1.5)
        needs = found["memory"] * (more / slots - 1)
        if needs > free:
            return (
                f"tasks wait and all slots are used; {more} slots need {size(needs)} more memory, {size(free)} are "
                "free: add a host to the group worker"
            )
        return f"tasks wait and all slots are used: in celery_worker_programs, name: {entry}, write concurrency: {more}"
    if waiting and share < BUSY / 2:
        return (
            f"tasks wait in {', '.join(waiting)} though slots are free. Look for a pause, a rate limit or long tasks: "
            "ansible-playbook playbooks/status.yml, ansible-playbook playbooks/tasks.yml"
        )
    less = max(1, math.ceil(found["peak"]) + 1)
    if share <= IDLE and less <= slots / 2:
        return (
            f"at most {found['peak']:.0f} of {slots} slots were used: to save memory, in celery_worker_programs, "
            f"name: {entry}, write concurrency: {less}. Keep it if this was a quiet time"
        )
    return ""


def size(amount: float) -> str:
    """Return bytes in the unit that fits."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"
