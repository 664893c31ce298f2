"""The watchdog: assesses the programs of an application on this host, and restarts only those that a restart helps.

One process a host, under Supervisor like the others. Every two seconds it reads the processes that carry the
guard's mark, their heartbeats and, where one is late, asks the broker; assesses each program (`assess`), and applies
the remedy for its state (`remedy`): SIGCONT for what is frozen, TERM for what is deaf or stuck, KILL for what has
outlived its time. Supervisor starts again whatever ends. A worker or scheduler of the application that is no child of
the supervisord this one runs under is an orphan: told to finish, waited for, ended. docs/watchdog.md has a
table of all states.
"""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery_ops import pause, shared_memory
from celery_ops.launch.process import Process, of_this_user, report
from celery_ops.layout import CANARY, GUARD, HEARTBEAT, Layout, program_of
from celery_ops.watchdog.assessment import YOUNG, Assessment, Seen, assess, remedy
from celery_ops.watchdog.orphans import Orphan, started_by_hand
from celery_ops.watchdog.recycling import Recycler
from celery_ops.watchdog.telling import Teller
from celery_ops.watchdog.tracker import Tracker
from celery_ops.worker.heartbeat import Heartbeat, read

GONE = 5.0
"""Seconds without a process after which a program counts as down."""

REPLY = 3.0
"""Seconds the broker has to answer."""

ROOM = 2**20
"""Bytes that have to be free for heartbeats to be written."""

CONSEQUENCE = {
    signal.SIGCONT: "go on",
    signal.SIGTERM: "finish, so that Supervisor starts it again",
    signal.SIGKILL: "end at once, so that Supervisor starts it again",
}


class Watchdog:
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
        self.trackers: dict[str, Tracker] = {}
        self.orphans: dict[tuple[int, int], Orphan] = {}
        self.brokers: dict[str, bool] = {}
        self.seen: dict[str, Seen] = {}
        """By generation what the last round saw of it."""
        self.sent: list[tuple[str, str]] = []
        """Signals sent, and to which generation, until the metrics have counted them."""
        self.teller = Teller(Layout(app).notify)
        self.recycler = Recycler(conf_dir, run, read, self.act)

    def say(self, message: str) -> None:
        """Write a line to the log, with the time."""
        report(time.strftime("%Y-%m-%d %H:%M:%S"), message)

    def act(self, message: str) -> None:
        """Write to the log what is done, and tell those who want to know."""
        self.say(message)
        self.teller.add(message)

    def run_once(self) -> None:
        """Assess everything once, and do what is due."""
        now = time.monotonic()
        self.brokers = {}
        # Asked for before the processes are read: one that ends after that is still among them.
        stand_in = self.recycler.stand_in
        processes = of_this_user()
        ours = [process for process in processes if process.identity and process.identity.app == self.app]
        mains = [process for process in ours if process.is_main]
        programs = {main.identity.program: main for main in mains if main.parent == self.supervisor}
        self.seen = {}
        for name, main in programs.items():
            children = [one for one in ours if one.parent == main.pid and one.identity == main.identity]
            self.seen[name] = self._see(name, main, children, now)
            self._supervise(self.seen[name], now)
        self.recycler.step(programs, now)
        wanted = self._wanted()
        self._record_missing(set(programs), wanted, now)
        by_hand = started_by_hand(processes, self.app, self.module, self.home)
        found = [main for main in [*mains, *by_hand] if main.parent != self.supervisor]
        self._end_orphans([main for main in found if main.pid != stand_in], processes)
        self._tidy({main.identity.program for main in mains} | wanted)

    def about(self) -> dict[str, Any]:
        """Return all assessments, for the watchdog's own heartbeat."""
        now = time.monotonic()
        return {
            "programs": {
                name: {
                    "state": tracker.assessment.state,
                    "why": tracker.assessment.why,
                    "pid": tracker.pid,
                    "seconds": round(now - tracker.since),
                    "restarts": tracker.restarts,
                    **self.recycler.about(name),
                }
                for name, tracker in sorted(self.trackers.items())
                if tracker.assessment
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
            idle=self._tracker(name).idle(beat.get("accepted", 0), now),
            starts=self.starts,
            unwritable=unwritable(self.run),
        )

    def _tracker(self, name: str) -> Tracker:
        return self.trackers.setdefault(name, Tracker(name, self.say))

    def _supervise(self, seen: Seen, now: float) -> None:
        tracker = self._tracker(seen.name)
        drain_timeout = seen.main.drain_timeout or self.drain_timeout
        assessment = assess(seen, drain_timeout, self._answers)
        tracker.update(assessment, seen.main.pid, now)
        self.recycler.look(seen, assessment.state, now)
        number = tracker.due(remedy(assessment, seen, drain_timeout), now)
        if number is None:
            return
        receivers = [seen.main]
        if number == signal.SIGCONT:
            receivers = [one for one in (seen.main, *seen.children) if one.pid in assessment.pids]
        pids = " ".join(str(one.pid) for one in receivers)
        self.act(f"{seen.name}: {assessment.why}: {number.name} sent to {pids}, to {CONSEQUENCE[number]}")
        self.sent.append((seen.name, number.name))
        for one in receivers:
            one.send(number)
        if number == signal.SIGTERM and assessment.state == "frozen":
            for one in (seen.main, *seen.children):  # what is stopped can't even end
                one.send(signal.SIGCONT)

    def _answers(self, address: str) -> bool:
        if address not in self.brokers:
            self.brokers[address] = any(map(answers, address.split(";")))
        return self.brokers[address]

    def _record_missing(self, running: set[str], wanted: set[str], now: float) -> None:
        """Record what should run and does not. Supervisor or an operator starts it again."""
        for name in running | wanted:
            self._tracker(name)
        for name, tracker in list(self.trackers.items()):
            if name in running:
                tracker.seen = now
            elif name not in wanted:
                del self.trackers[name]
                self.say(f"{name}: gone (was {tracker.assessment.state if tracker.assessment else 'down'})")
            elif self._is_closed(name):
                tracker.update(Assessment("paused", "closed for maintenance: the listener answers 503"), 0, now)
            elif now - tracker.seen > GONE:
                why = f"Supervisor starts it again, unless somebody stopped it: supervisorctl status {name}"
                tracker.update(Assessment("down", why), 0, now)

    def _is_closed(self, name: str) -> bool:
        """Whether it is a web program that waits for the end of a maintenance."""
        is_web = program_of(name) == Layout(self.app).web
        return is_web and pause.is_web_closed(pause.read(pause.file(self.app)), name)

    def _wanted(self) -> set[str]:
        """Return the guarded programs of this application that conf.d names, the watchdog left out."""
        layout, wanted = Layout(self.app), set()
        for path in self.conf_dir.glob(f"{self.app}-*.conf"):
            with contextlib.suppress(OSError):
                if GUARD in path.read_text(encoding="utf-8", errors="replace"):
                    wanted.add(path.stem)
        watchdogs = tuple(f"{name}-" for name in (layout.watchdog, layout.watchdog_before))
        return {name for name in wanted if not name.startswith(watchdogs)}

    def _end_orphans(self, mains: list[Process], processes: list[Process]) -> None:
        found = {(main.pid, main.start): main for main in mains}
        for key in set(self.orphans) - set(found):
            self.act(f"pid {key[0]} ({self.orphans.pop(key).what}) has ended")
        for key, main in found.items():
            if key not in self.orphans:
                self.orphans[key] = Orphan(main, main.drain_timeout or self.drain_timeout, self.act)
            self.orphans[key].step(main, processes)

    def _tidy(self, known: set[str]) -> None:
        """Remove the heartbeats and canaries of programs that are gone, and results that nobody fetched."""
        shared_memory.sweep(Layout(self.app).memory)
        keep = known | {os.environ.get("CELERY_OPS_PROGRAM")}
        for path in self.run.glob(f"{self.app}-*"):
            if path.suffix in (HEARTBEAT, CANARY) and path.stem not in keep:
                path.unlink(missing_ok=True)


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


def unwritable(directory: Path) -> str:
    """Return why nothing can be written in a directory, "" where it can.

    Programs go on without their heartbeats; one that is restarted then ends, as it can't write its pidfile.
    """
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    if found.f_flag & os.ST_RDONLY:
        return f"the file system of {directory} is read-only"
    has_room = found.f_bavail * found.f_frsize >= ROOM and (found.f_favail or not found.f_files)
    return "" if has_room else f"the file system of {directory} is full: df -h {directory}; df -i {directory}"


class WatchdogHeartbeat(Heartbeat):
    """The watchdog's own heartbeat, which holds its assessments."""

    def __init__(self, path: str, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        super().__init__(path, "watchdog")

    def about(self) -> dict[str, Any]:
        """Return what the watchdog knows."""
        return self.watchdog.about()
