"""Tells how one program is from one look at it, and what helps: the watchdog's rules, without a process or a clock."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery_ops.launch.process import Process
from celery_ops.worker.heartbeat import DRAINING, READY, STANDBY, STARTING

STATES = (
    *("ready", "busy", "up", "standby", "paused", "starting", "broker away", "reconnecting", "deaf", "stuck", "frozen"),
    *("draining", "overdue", "down"),
)
"""All states, in the order in which they stand for a program of which there are several generations."""

LATE = 30.0
"""Seconds that a heartbeat may be overdue."""

IDLE = 30.0
"""Seconds without a task accepted after which a pool that has nothing to do, though tasks wait, is stuck."""

FROZEN = (6.0, 16.0, 26.0)
"""Seconds after which what is stopped gets CONT, TERM and KILL."""

DEAF = 30.0
"""Seconds after which what is connected and doesn't consume is restarted."""

STUCK = 120.0
"""Seconds after which what is silent, or doesn't connect, is restarted."""

MARGIN = 30.0
"""Seconds beyond its time that a program may drain; supervisord's own KILL comes first."""

YOUNG = 60.0
"""Seconds in which a worker or scheduler without a heartbeat counts as starting."""

GREEN = frozenset({"gevent", "eventlet", "solo"})
"""Pools whose tasks run in the main loop: it may be silent for as long as a task may take."""


@dataclass(frozen=True)
class Assessment:
    """The state of a program, and the reason in words."""

    state: str
    why: str = ""
    pids: tuple[int, ...] = ()
    """The processes it is about, where that isn't the program's main process."""


@dataclass(frozen=True)
class Seen:
    """One look at one program."""

    name: str
    main: Process
    children: tuple[Process, ...] = ()
    heartbeat: dict[str, Any] = field(default_factory=dict)
    late: float = 0.0
    """Seconds by which its heartbeat is overdue."""
    drains: float = 0.0
    """Seconds since it began to drain."""
    idle: float = 0.0
    """Seconds since it last accepted a task, as far as the watchdog has seen."""
    starts: float = 0.0
    """Seconds that it, or a process of its pool, may take to start."""
    unwritable: str = ""
    """Why no program can write a heartbeat; empty where they can."""


def assess(seen: Seen, drain_timeout: float, broker: Callable[[str], bool]) -> Assessment:
    """Return the state of a program; `broker(address)` tells whether a broker answers, and is asked only in doubt."""
    beat = seen.heartbeat
    frozen = tuple(process.pid for process in (seen.main, *seen.children) if process.state == "T")
    if frozen:
        what = "its main process is" if seen.main.pid in frozen else f"{len(frozen)} of its pool processes are"
        return Assessment("frozen", f"{what} stopped (state T)", frozen)
    if not beat:
        young = ("-worker-" in seen.name or "-scheduler-" in seen.name) and seen.main.age < max(YOUNG, seen.starts)
        return Assessment("starting") if young else Assessment("up", "it writes no heartbeat")
    if beat["state"] == DRAINING:
        if seen.drains > drain_timeout + MARGIN:
            return Assessment("overdue", f"it has drained for {seen.drains:.0f} s and may for {drain_timeout:g} s")
        return Assessment("draining", f"{beat.get('active', 0)} tasks to finish")
    if beat["state"] == STARTING and seen.main.age < seen.starts:
        return Assessment("starting")
    if seen.late > LATE and seen.unwritable:
        return Assessment("up", f"its heartbeat can't be written: {seen.unwritable}")
    connected = beat.get("connected", True)
    if seen.late > LATE or (not connected and beat["state"] in (READY, STANDBY)):
        if beat.get("broker") and not broker(beat["broker"]):
            return Assessment("broker away", f"{beat['broker']} does not answer; it will connect by itself")
        if seen.late > LATE:
            return Assessment("stuck", f"its main loop has been silent for {seen.late + beat['due']:.0f} s")
        return Assessment("reconnecting", f"{beat['broker']} answers, it is not connected yet")
    if beat["state"] == STANDBY:
        return Assessment("standby", "another scheduler leads")
    if beat["kind"] != "worker":
        return Assessment("ready")
    if beat["state"] == STARTING:
        return Assessment("starting")
    closed = sorted(name for name, is_open in beat["queues"].items() if not is_open)
    if closed:
        return Assessment("deaf", f"it is connected and does not consume from {', '.join(closed)}")
    if not beat["queues"]:
        why = f"{', '.join(beat['paused'])}" if beat.get("paused") else "it was told to consume from no queue"
        return Assessment("paused", why)
    if beat["reserved"] and not beat["active"] and seen.idle > max(IDLE, seen.starts):
        return Assessment("stuck", f"its pool has taken none of {beat['reserved']} tasks for {seen.idle:.0f} s")
    return Assessment("busy" if beat["active"] >= beat["slots"] else "ready")


def remedy(assessment: Assessment, seen: Seen, drain_timeout: float) -> list[tuple[float, signal.Signals]]:
    """Return the signals that help in this state, and after how many seconds in it; none in most states."""
    stuck = max(STUCK, drain_timeout) if seen.heartbeat.get("pool") in GREEN else STUCK
    return {
        "frozen": list(zip(FROZEN, (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL), strict=True)),
        "deaf": [(DEAF, signal.SIGTERM), (DEAF + drain_timeout, signal.SIGKILL)],
        "stuck": [(stuck, signal.SIGTERM), (stuck + drain_timeout, signal.SIGKILL)],
        "reconnecting": [(stuck, signal.SIGTERM), (stuck + drain_timeout, signal.SIGKILL)],
        "overdue": [(0.0, signal.SIGKILL)],
    }.get(assessment.state, [])
