"""The watch: knows how the programs of an application on this host are, and restarts only what a restart helps.

One process a host, under Supervisor like the others. Every two seconds it looks at the processes that carry the
guard's mark, at their heartbeats and, where one is late, at the broker; judges each program (`judge`), and does
what its state needs (`course`): SIGCONT for what is frozen, TERM for what is deaf or stuck, KILL for what has
outlived its time. Supervisor starts again whatever ends. A worker or scheduler of ours that is no child of
the supervisord this one runs under is an orphan: told to finish, waited for, ended. docs/operations.md has a
table of all states.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from celery_ops.heartbeat import DRAINING, READY, STARTING, Heartbeat
from celery_ops.layout import CANARY, CONF_D, GUARD, HEARTBEAT, TIME_LIMIT, Layout, stop_timeout
from celery_ops.orphans import Orphan, started_by_hand
from celery_ops.process import Process, of_this_user, report

ROUND = 2.0
"""Seconds between two looks."""

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

PAUSES = (30.0, 900.0)
"""Seconds between two treatments of one program: at first, and at most after doubling."""

MARGIN = 30.0
"""Seconds beyond its time that a program may drain; supervisord's own KILL comes first."""

GONE = 5.0
"""Seconds without a process after which a program counts as down."""

YOUNG = 60.0
"""Seconds in which a worker or scheduler without a heartbeat counts as starting."""

REPLY = 3.0
"""Seconds the broker has to answer."""

WELL = frozenset({"ready", "busy"})
"""States between which a program goes to and fro; that is no news."""

GREEN = frozenset({"gevent", "eventlet", "solo"})
"""Pools whose tasks run in the main loop: it may be silent for as long as a task may take."""

CONSEQUENCE = {
    signal.SIGCONT: "go on",
    signal.SIGTERM: "finish, so that Supervisor starts it again",
    signal.SIGKILL: "end at once, so that Supervisor starts it again",
}


@dataclass(frozen=True)
class Verdict:
    """How a program is, and why, in words."""

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
    """Seconds since it last accepted a task, as far as the watch has seen."""
    starts: float = 0.0
    """Seconds that it, or a process of its pool, may take to start."""


def judge(seen: Seen, drain_timeout: float, broker: Callable[[str], bool]) -> Verdict:
    """Return how a program is; `broker(address)` tells whether a broker answers, and is asked only when in doubt."""
    beat = seen.heartbeat
    frozen = tuple(process.pid for process in (seen.main, *seen.children) if process.state == "T")
    if frozen:
        what = "its main process is" if seen.main.pid in frozen else f"{len(frozen)} of its pool processes are"
        return Verdict("frozen", f"{what} stopped (state T)", frozen)
    if not beat:
        young = ("-worker-" in seen.name or "-scheduler-" in seen.name) and seen.main.age < max(YOUNG, seen.starts)
        return Verdict("starting") if young else Verdict("up", "it writes no heartbeat")
    if beat["state"] == DRAINING:
        if seen.drains > drain_timeout + MARGIN:
            return Verdict("overdue", f"it has drained for {seen.drains:.0f} s and may for {drain_timeout:g} s")
        return Verdict("draining", f"{beat.get('active', 0)} tasks to finish")
    if beat["state"] == STARTING and seen.main.age < seen.starts:
        return Verdict("starting")
    connected = beat.get("connected", True)
    if seen.late > LATE or (not connected and beat["state"] == READY):
        if beat.get("broker") and not broker(beat["broker"]):
            return Verdict("broker away", f"{beat['broker']} does not answer; it will connect by itself")
        if seen.late > LATE:
            return Verdict("stuck", f"its main loop has been silent for {seen.late + beat['due']:.0f} s")
        return Verdict("reconnecting", f"{beat['broker']} answers, it is not connected yet")
    if beat["kind"] != "worker":
        return Verdict("ready")
    if beat["state"] == STARTING:
        return Verdict("starting")
    closed = sorted(name for name, is_open in beat["queues"].items() if not is_open)
    if closed:
        return Verdict("deaf", f"it is connected and does not consume from {', '.join(closed)}")
    if not beat["queues"]:
        return Verdict("paused", "it was told to consume from no queue")
    if beat["reserved"] and not beat["active"] and seen.idle > max(IDLE, seen.starts):
        return Verdict("stuck", f"its pool has taken none of {beat['reserved']} tasks for {seen.idle:.0f} s")
    return Verdict("busy" if beat["active"] >= beat["slots"] else "ready")


def course(verdict: Verdict, seen: Seen, drain_timeout: float) -> list[tuple[float, signal.Signals]]:
    """Return what helps in this state: signals, and after how many seconds in it. Nothing in most states."""
    stuck = max(STUCK, drain_timeout) if seen.heartbeat.get("pool") in GREEN else STUCK
    return {
        "frozen": list(zip(FROZEN, (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL), strict=True)),
        "deaf": [(DEAF, signal.SIGTERM), (DEAF + drain_timeout, signal.SIGKILL)],
        "stuck": [(stuck, signal.SIGTERM), (stuck + drain_timeout, signal.SIGKILL)],
        "reconnecting": [(stuck, signal.SIGTERM), (stuck + drain_timeout, signal.SIGKILL)],
        "overdue": [(0.0, signal.SIGKILL)],
    }.get(verdict.state, [])


class Patient:
    """What the watch remembers of a program: its state since when, and what was done about it."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.verdict: Verdict | None = None
        self.since = 0.0
        self.pid = 0
        self.seen = time.monotonic()
        self.treated = 0
        self.not_before = 0.0
        self.begun = 0.0
        self.done = 0
        self.accepted: tuple[int, float] = (-1, 0.0)

    def idle(self, accepted: int, now: float) -> float:
        """Return for how many seconds the number of tasks it has accepted has been the same."""
        if accepted != self.accepted[0]:
            self.accepted = (accepted, now)
        return now - self.accepted[1]

    def note(self, verdict: Verdict, pid: int, now: float) -> None:
        """Take a verdict down; say so if it is news."""
        before, self.verdict = self.verdict, verdict
        if before is not None and (before.state, self.pid) == (verdict.state, pid):
            return
        known = {before.state, verdict.state} if before else set()
        if not (known and known <= WELL and self.pid == pid):
            why = f" - {verdict.why}" if verdict.why else ""
            after = f" (was {before.state} for {now - self.since:.0f} s)" if before else ""
            self.say(f"{self.name}, pid {pid or 'none'}: {verdict.state}{why}{after}")
        self.pid, self.since, self.done = pid, now, 0
        # After a treatment the next illness has to last longer before it is treated.
        self.begun = max(now, self.not_before)

    def due(self, steps: list[tuple[float, signal.Signals]], now: float) -> signal.Signals | None:
        """Return the signal whose time has come, once."""
        if self.done >= len(steps) or now - self.begun < steps[self.done][0]:
            return None
        if self.done == 0:
            # Long without one: what helped then is forgotten.
            self.treated = self.treated + 1 if now < self.not_before + PAUSES[1] else 1
            self.not_before = now + min(PAUSES[0] * 2 ** (self.treated - 1), PAUSES[1])
        self.done += 1
        return steps[self.done - 1][1]


class Watch:
    """Looks after the programs of one application on this host."""

    def __init__(
        self,
        app: str,
        module: str,
        supervisor: int,
        run: Path,
        conf_dir: Path,
        drain_timeout: float,
        start_timeout: float = 0.0,
    ) -> None:
        self.app, self.module, self.supervisor = app, module, supervisor
        # What is quicker than this has the ordinary limits.
        self.starts = start_timeout if start_timeout > YOUNG else 0.0
        self.run, self.conf_dir, self.drain_timeout = run, conf_dir, drain_timeout
        self.home = Layout(app).base
        self.patients: dict[str, Patient] = {}
        self.orphans: dict[tuple[int, int], Orphan] = {}
        self.brokers: dict[str, bool] = {}

    def say(self, message: str) -> None:
        """Write a line to the log, with the time."""
        report(time.strftime("%Y-%m-%d %H:%M:%S"), message)

    def look(self) -> None:
        """Look once at everything, and do what is due."""
        now = time.monotonic()
        self.brokers = {}
        processes = of_this_user()
        ours = [process for process in processes if process.identity and process.identity.app == self.app]
        mains = [process for process in ours if process.is_main]
        programs = {main.identity.program: main for main in mains if main.parent == self.supervisor}
        for name, main in programs.items():
            children = [one for one in ours if one.parent == main.pid and one.identity == main.identity]
            self._care(self._see(name, main, children, now), now)
        wanted = self._wanted()
        self._look_for_the_missing(set(programs), wanted, now)
        by_hand = started_by_hand(processes, self.app, self.module, self.home)
        self._evict([main for main in [*mains, *by_hand] if main.parent != self.supervisor], processes)
        self._tidy({main.identity.program for main in mains} | wanted)

    def about(self) -> dict[str, Any]:
        """Return all verdicts, for the watch's own heartbeat."""
        now = time.monotonic()
        return {
            "programs": {
                name: {
                    "state": patient.verdict.state,
                    "why": patient.verdict.why,
                    "pid": patient.pid,
                    "seconds": round(now - patient.since),
                    "treated": patient.treated,
                }
                for name, patient in sorted(self.patients.items())
                if patient.verdict
            },
            "orphans": [orphan.about() for orphan in self.orphans.values()],
        }

    def _see(self, name: str, main: Process, children: list[Process], now: float) -> Seen:
        beat = read(self.run / f"{name}{HEARTBEAT}")
        if beat.get("pid") != main.pid:  # of an earlier process of that name
            return Seen(name, main, tuple(children), starts=self.starts)
        return Seen(
            name,
            main,
            tuple(children),
            beat,
            late=now - beat["beat"] - beat["due"],
            drains=now - beat["since"],
            idle=self._patient(name).idle(beat.get("accepted", 0), now),
            starts=self.starts,
        )

    def _patient(self, name: str) -> Patient:
        return self.patients.setdefault(name, Patient(name, self.say))

    def _care(self, seen: Seen, now: float) -> None:
        patient = self._patient(seen.name)
        drain_timeout = seen.main.drain_timeout or self.drain_timeout
        verdict = judge(seen, drain_timeout, self._answers)
        patient.note(verdict, seen.main.pid, now)
        number = patient.due(course(verdict, seen, drain_timeout), now)
        if number is None:
            return
        receivers = [seen.main]
        if number == signal.SIGCONT:
            receivers = [one for one in (seen.main, *seen.children) if one.pid in verdict.pids]
        pids = " ".join(str(one.pid) for one in receivers)
        self.say(f"{seen.name}: {verdict.why}: {number.name} sent to {pids}, to {CONSEQUENCE[number]}")
        for one in receivers:
            one.send(number)
        if number == signal.SIGTERM and verdict.state == "frozen":
            for one in (seen.main, *seen.children):  # what is stopped can't even end
                one.send(signal.SIGCONT)

    def _answers(self, address: str) -> bool:
        if address not in self.brokers:
            self.brokers[address] = answers(address)
        return self.brokers[address]

    def _look_for_the_missing(self, running: set[str], wanted: set[str], now: float) -> None:
        """Take down what should run and does not. Bringing it back is Supervisor's business, or an operator's."""
        for name in running | wanted:
            self._patient(name)
        for name, patient in list(self.patients.items()):
            if name in running:
                patient.seen = now
            elif name not in wanted:
                self.say(f"{name}: gone (was {self.patients.pop(name).verdict.state if patient.verdict else 'down'})")
            elif now - patient.seen > GONE:
                why = f"Supervisor starts it again, unless somebody stopped it: supervisorctl status {name}"
                patient.note(Verdict("down", why), 0, now)

    def _wanted(self) -> set[str]:
        """Return the guarded programs of this application that conf.d names, watches left out."""
        wanted = set()
        for path in self.conf_dir.glob(f"{self.app}-*.conf"):
            with contextlib.suppress(OSError):
                if GUARD in path.read_text(encoding="utf-8", errors="replace"):
                    wanted.add(path.stem)
        return {name for name in wanted if not name.startswith(f"{self.app}-health-")}

    def _evict(self, mains: list[Process], processes: list[Process]) -> None:
        found = {(main.pid, main.start): main for main in mains}
        for key in set(self.orphans) - set(found):
            self.say(f"pid {key[0]} ({self.orphans.pop(key).what}) has ended")
        for key, main in found.items():
            if key not in self.orphans:
                self.orphans[key] = Orphan(main, main.drain_timeout or self.drain_timeout, self.say)
            self.orphans[key].step(main, processes)

    def _tidy(self, known: set[str]) -> None:
        """Remove the heartbeats and canaries of programs that are gone for good."""
        keep = known | {os.environ.get("CELERY_OPS_PROGRAM")}
        for path in self.run.glob(f"{self.app}-*"):
            if path.suffix in (HEARTBEAT, CANARY) and path.stem not in keep:
                path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Return a heartbeat, empty where there is none that can be read."""
    try:
        beat = json.loads(path.read_text(encoding="utf-8"))
        return beat if {"kind", "pid", "state", "since", "beat", "due"} <= set(beat) else {}
    except (OSError, ValueError, TypeError):
        return {}


def answers(address: str) -> bool:
    """Tell whether the broker at "transport://host:port" answers. A frozen one accepts, and says nothing."""
    parts = urlsplit(address)
    try:
        if not parts.hostname or not parts.port:
            return True  # not one that is somewhere else
        with socket.create_connection((parts.hostname, parts.port), REPLY) as connection:
            if parts.scheme not in ("amqp", "pyamqp"):
                return True
            connection.settimeout(REPLY)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
    except (OSError, ValueError):
        return False


class WatchHeartbeat(Heartbeat):
    """The watch's own heartbeat, which holds its verdicts."""

    def __init__(self, path: str, watch: Watch) -> None:
        self.watch = watch
        super().__init__(path, "watch")

    def about(self) -> dict[str, Any]:
        """Return what the watch knows."""
        return self.watch.about()


def start_timeout() -> float:
    """Return the seconds that a worker may take to start, as the application's environment says; 0 for nothing."""
    seconds = os.environ.get("CELERY_OPS_START_TIMEOUT", "")
    return float(seconds) if seconds.isdigit() else 0.0


def main(argv: list[str] | None = None) -> NoReturn:
    """Watch until told to stop (console script ``celery-ops-health``)."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-health", description="Watch the programs of an application; restart what a restart helps."
    )
    parser.add_argument("-A", "--module", required=True, help="the application, as for celery -A")
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=stop_timeout(TIME_LIMIT),
        metavar="SECONDS",
        help="time to drain (%(default)s)",
    )
    parser.add_argument("--conf-dir", type=Path, default=CONF_D, metavar="DIR")
    options = parser.parse_args(argv)
    path, app = os.environ.get("CELERY_OPS_HEARTBEAT_FILE"), os.environ.get("CELERY_OPS_APP")
    if not path or not app:
        sys.exit("celery-ops-health: it was not started by celery-ops-guard; type: supervisorctl status")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    watch = Watch(
        app, options.module, os.getppid(), Path(path).parent, options.conf_dir, options.drain_timeout, start_timeout()
    )
    heartbeat = WatchHeartbeat(path, watch)
    heartbeat.enter(READY)
    watch.say(f"the watch over {app} begins")
    while not signal.sigtimedwait(stop, ROUND):
        watch.look()
        heartbeat.write(due=ROUND)
    sys.exit(0)


if __name__ == "__main__":
    main()
