"""Beat under the lease: it stands by until it leads, sends only while it leads, and ends as soon as that is in doubt.

An entry's task has an id that follows from the entry and its last run, and the token tells the next leader of the last
runs: what a leader may or may not have sent before it ended is sent again under the same id, and workers refuse an id
that they know (`celery_ops.worker.ticks`).
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops.launch.env import application_name
from celery_ops.lease.queue import LeaseQueue, is_nacked, now, why_of
from celery_ops.lease.state import Lost, Runs
from celery_ops.worker.heartbeat import STANDBY, Heartbeat, address
from celery_ops.worker.ticks import HEADER

if TYPE_CHECKING:
    from celery import Celery
    from celery.beat import ScheduleEntry, Scheduler, Service

EX_TEMPFAIL = 75
"""The exit status of a leader that has lost the lease; Supervisor starts it again, and it stands by."""
NACKED = 4
"""How often a task is sent that the broker answers not to have taken, as while its queue gets another leader."""
FENCE_LOOK = 0.1
"""Seconds between two looks at the time for which the lease is certain."""
GONE = 1000
"""How many entries may be gone before the token stops telling of them."""
IDS = uuid.UUID("6c0d9f7e-2f2f-4a1b-9c53-0f2a7e0c5a11")
"""The namespace of the tasks' ids."""


def connect() -> None:
    """Put the beat of this process under the lease."""
    from celery import beat

    start = beat.Service.start

    def starting(service: Service, *arguments: Any, **options: Any) -> None:
        queue = stand_by(service.app)
        Leader(service.scheduler, queue).take_over()
        start(service, *arguments, **options)

    beat.Service.start = starting


def stand_by(app: Celery) -> LeaseQueue:
    """Return the lease's queue once it is this process's turn."""
    program = os.environ.get("CELERY_OPS_PROGRAM") or "scheduler"
    queue = LeaseQueue(app, application_name(app.main), f"{program}@{socket.gethostname()}")
    heartbeat, known = StandbyHeartbeat(app), [""]

    def meanwhile(connected: bool, why: str) -> None:
        heartbeat.beat(connected)
        if why != known[0]:
            say(f"standing by; no connection to the broker: {why}" if why else "connected again")
            known[0] = why

    # Beat's own handler would open the schedule's file, which belongs to the leader.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    atexit.register(queue.close)
    say("standing by for the lease")
    queue.await_turn(meanwhile)
    return queue


class StandbyHeartbeat(Heartbeat):
    """The heartbeat of a scheduler that stands by; there is none before it is in line."""

    def __init__(self, app: Celery) -> None:
        super().__init__(os.environ.get("CELERY_OPS_HEARTBEAT_FILE", ""), "scheduler", address(app))
        self.connected = False

    def beat(self, connected: bool) -> None:
        """Write it."""
        in_line = connected or self.state == STANDBY
        self.connected = connected
        if self.path and in_line:
            self.enter(STANDBY)

    def about(self) -> dict[str, Any]:
        """Return whether it is in line."""
        return {"connected": self.connected}


class Leader:
    """A scheduler that leads, and the lease by which it does."""

    def __init__(self, scheduler: Scheduler, queue: LeaseQueue) -> None:
        self.scheduler, self.queue = scheduler, queue
        self.runs: Runs = {}
        self.number = self.most = 0
        self.sent = self.busy = self.stopping = False

    def take_over(self) -> None:
        """Go on where the leader before ended, and send nothing but under the lease from now on."""
        scheduler = self.scheduler
        before = self.queue.lease.newest
        apply_runs(scheduler, before.runs)
        scheduler.celery_ops_goes_on = bool(before.seq)
        self.runs = {name: run_of(entry) for name, entry in scheduler.schedule.items()}
        self.most = len(self.runs) + GONE
        self._tick, self._reserve, self._apply_async = scheduler.tick, scheduler.reserve, scheduler.apply_async
        scheduler.tick, scheduler.reserve, scheduler.apply_async = self.tick, self.reserve, self.apply_async
        scheduler.producer = self.queue.producer
        if not hasattr(scheduler, "schedule_filename"):
            scheduler.sync_every_tasks = 1  # a database knows the last run at once
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        self.renew()
        threading.Thread(target=self.fence, name="fence", daemon=True).start()
        after = f"after {before.by}, renewal {before.seq}" if before.seq else "nobody did before"
        say(f"leads from now on ({after})")

    # --- In the place of the scheduler's own methods

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Do what is due, and renew the lease; return the seconds until either is to be done again."""
        self.busy = True
        if not self.queue.lease.due_in(now()):
            self.renew()
        pause = self._tick(*arguments, **options)
        self.forget()
        if self.sent:
            self.renew()
        self.busy = False
        if self.stopping:
            self.leave()
        return min(float(pause or 0), self.queue.lease.due_in(now()))

    def reserve(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Count a run; the next renewal tells of it."""
        reserved = self._reserve(entry)
        self.runs[reserved.name] = run_of(reserved)
        return reserved

    def forget(self) -> None:
        """Forget entries that are gone: one that runs once may have another name each time."""
        if len(self.runs) > self.most:
            known = self.scheduler.schedule
            self.runs = {name: run for name, run in self.runs.items() if name in known}
            self.most = len(self.runs) + GONE

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """Send an entry's task, under the id of this run."""
        task_id, run = id_of(entry), int(entry.total_run_count or 0) + 1
        entry = self.reserve(entry) if advance else entry
        self.sent, self.number = True, self.number + 1
        own = entry.options
        entry.options = {
            "task_id": task_id,
            **own,
            "headers": {**(own.get("headers") or {}), HEADER: f"{self.queue.by} {os.getpid()} {self.number} {run}"},
            "retry": False,  # on another connection, without the lease
        }
        try:
            return self.send(entry, **options)
        finally:
            entry.options = own

    def send(self, entry: ScheduleEntry, **options: Any) -> Any:
        """Send it over the lease's connection; end this process where the way to the broker is broken."""
        for attempt in range(1, NACKED + 1):
            try:
                self.queue.refuse_to_send_late()
                return self._apply_async(entry, producer=self.queue.producer, advance=False, **options)
            except Lost as why:
                give_up(str(why))
            except Exception as error:
                if self.queue.is_broken(error):
                    give_up(f"{entry.name} could not be sent: {why_of(error)}")
                # What the broker refuses costs its channel and this task alone.
                self.queue.renew_producer()
                if attempt == NACKED or not is_nacked(error):
                    raise
                time.sleep(0.2)

    # --- The lease

    def renew(self) -> None:
        """Renew the lease; end this process where that fails."""
        try:
            self.queue.renew(dict(self.runs))
            self.sent = False
        except Lost as why:
            give_up(str(why))

    def fence(self) -> None:
        """End this process when the lease is no longer certain, whatever the main thread is at."""
        while self.queue.lease.may_send(now()):
            time.sleep(FENCE_LOOK)
        give_up(f"the last confirmed renewal was sent {self.queue.lease.age(now()):.1f} s ago")

    def stop(self, *_: Any) -> None:
        """Stop between two ticks: what was sent is in the token then."""
        self.stopping = True
        if not self.busy:
            self.leave()

    def leave(self) -> NoReturn:
        """End beat's loop: it saves the schedule. The lease goes to the next one with the end of this process."""
        raise SystemExit(0)


def give_up(why: str) -> NoReturn:
    """End this process at once: nothing is sent, and nothing saved, that the next leader does not know."""
    say(f"has lost the lease: {why}; ends, to stand by again")
    os._exit(EX_TEMPFAIL)


def say(what: str) -> None:
    """Write a line to the log. Not by a logger, whose lock a thread that hangs may hold."""
    line = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] scheduler {what}\n"
    try:
        os.write(2, line.encode())
    except OSError:
        return


def run_of(entry: ScheduleEntry) -> tuple[str, int]:
    """Return when an entry ran last, in UTC, and how often."""
    last = entry.last_run_at
    if last is not None and last.tzinfo is not None:
        last = last.astimezone(UTC)
    return (last.isoformat() if last else "", int(entry.total_run_count or 0))


def id_of(entry: ScheduleEntry) -> str:
    """Return the id of the task that is due: the same for each leader that knows of the same last run."""
    return str(uuid.uuid5(IDS, f"{entry.name}\0{run_of(entry)[0]}"))


def apply_runs(scheduler: Scheduler, runs: Runs) -> None:
    """Make the scheduler's entries go on from these runs; what its own file or database says of them is older."""
    for name, (last, count) in runs.items():
        entry = scheduler.schedule.get(name)
        if entry is None or not last or run_of(entry) == (last, count):
            continue
        moment = datetime.fromisoformat(last)
        # In the application's time zone, as beat has it: an entry of 3 o'clock stays one when the clocks change.
        entry.last_run_at = moment if moment.tzinfo is None else moment.astimezone(scheduler.app.timezone)
        entry.total_run_count = count
        model = getattr(entry, "model", None)
        if model is not None:  # of django-celery-beat, which reads its table again when a row changes
            model.last_run_at, model.total_run_count, model.no_changes = entry.last_run_at, count, True
            entry.save()
