"""Carry out a plan: one operation after the other; if one fails, what was done is undone, the last first."""

from __future__ import annotations

import math
import time
import xmlrpc.client
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import uninterrupted
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import program_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import intake, plan
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir, NoSpace
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.drain import killed, was_killed
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.logs import point
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.plan import Change, Operation, Seen
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.readiness import (
    NotReady,
    Readiness,
    await_ready,
    log_size,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import Fault, Supervisord

POLL = (0.02, 0.2)
"""Seconds between two looks at what stops: at first, as what replaces it waits for that, and at most after doubling."""

HELD_WITHIN = 5.0
"""Seconds for old consumers to take nothing more; one of an older kit never says so."""

FAILURES = (OperatorError, NotReady, OSError, xmlrpc.client.Fault)
"""What an operation may raise."""


@dataclass
class Report:
    """What was done for one program."""

    change: Change
    pid: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    gap: float | None = None
    killed: list[str] = field(default_factory=list)
    draining: list[str] = field(default_factory=list)
    restarted: bool = False

    def result(self) -> dict[str, Any]:
        """Return what the module reports of it."""
        return {
            "program": self.change.program,
            "name": self.change.name,
            "action": plan.RESTARTED if self.restarted else self.change.action,
            "from": list(self.change.olds),
            "pid": self.pid,
            "seconds": {key: round(value, 2) for key, value in self.seconds.items()},
            "gap": None if self.gap is None else round(self.gap, 2),
            "killed": self.killed,
            "draining": self.draining,
        }


def reports(changes: Iterable[Change], seen: Seen) -> dict[str, Report]:
    """Return the reports of changes that were not begun, by the program's name."""
    pids = {name: process.pid for name, process in seen.processes.items()}
    return {one.name: Report(one, pids.get(one.name), draining=list(one.draining)) for one in changes}


class Handover:
    """Carries out the operations of a plan against one supervisord."""

    def __init__(
        self, supervisord: Supervisord, conf_dir: ConfDir, seen: Seen, reports: Mapping[str, Report], app: str,
        run_dir: Path | None = None,
    ) -> None:  # fmt: skip
        self.supervisord = supervisord
        self.conf_dir = conf_dir
        self.seen = seen
        self.reports = reports
        self.app = app
        self.run_dir = run_dir
        self.committed = False
        self.warnings: list[str] = []
        self.log_starts: dict[str, int] = {}
        """Where in its log the attempt of each program begins, in bytes."""
        self._undo: list[Operation] = []
        self._readiness: dict[str, Readiness] = {}  # of what was awaited and is observed later
        self._told: dict[str, float] = {}  # old generations that were told to stop; see `_tell`
        self._stopped_at: dict[str, float] = {}  # when the old generations of a program were told to stop
        self._spares: dict[str, str] = {}  # where the disk is full: the old generation whose file it gets in the end

    def run(self, operations: Collection[Operation]) -> None:
        """Do it. Raises one of FAILURES; `go_back` then undoes what was done, unless it is `committed`."""
        for operation in operations:  # if there is no space for what will be needed, nothing has been touched yet
            self._stage(operation)
        for operation in operations:
            self.committed = False
            self._undo += operation.undo
            self._perform(operation)

    @property
    def told(self) -> list[str]:
        """The old generations that this handover has told to stop."""
        return sorted(name for name, earlier in self._told.items() if not earlier)

    def go_back(self) -> list[str]:
        """Undo what was done; return a sentence for each step, also for one that failed."""
        if not self._undo:
            return ["Nothing was changed."]
        said = []
        # It may be the reason: one that is restarted answers again in a moment. If not, each step says so.
        with suppress(OperatorError):
            self.supervisord.await_answer(plan.START_AGAIN)
        while self._undo:
            try:
                said.append(self._perform(self._undo.pop()) or "")
            except FAILURES as error:
                said.append(f"A rollback step failed: {str(error).rstrip('.')}.")
        return [sentence for sentence in said if sentence]

    def _perform(self, operation: Operation) -> str | None:
        return self._METHODS[type(operation)](self, operation)

    # --- Before anything is touched

    def _stage(self, operation: Operation) -> None:
        """Write what an operation and its inverse will need, so that they only rename."""
        if isinstance(operation, plan.Write):
            name, text = operation.program.name, operation.program.conf
            if not operation.lasting:
                self.conf_dir.stage_link(name, text)
                try:
                    self.conf_dir.stage_file(name, text)
                except NoSpace:
                    if not operation.spare:
                        raise
                    self._spares[name] = operation.spare
            elif not self._is_written(name, text):
                self.conf_dir.stage_file(name, text)
                self.conf_dir.stage_backup(name)
        elif isinstance(operation, plan.Retire):
            for old in operation.leaving:
                if self.seen.was_ready(old.name):
                    self.conf_dir.stage_link(old.name, self.seen.files[old.name])
                    self.conf_dir.stage_backup(old.name)

    def _is_written(self, name: str, text: str) -> bool:
        return self.conf_dir.has(name, text) and name not in self.seen.provisional

    # --- The operations

    def _stop_first(self, operation: plan.Stop) -> None:
        now = time.monotonic()
        seconds = self._stop_surely(operation.names)
        for name in operation.successors:
            self._stopped_at[name] = now
            self.reports[name].seconds["drain"] = seconds

    def _write(self, operation: plan.Write) -> None:
        name = operation.program.name
        if not operation.lasting:
            self.conf_dir.make_volatile(name)
        elif not self._is_written(name, operation.program.conf):
            self.conf_dir.make_lasting(name)

    def _start(self, operation: plan.Start) -> None:
        stale = self.supervisord.reread().changed
        for one in operation.programs:
            if one.name in stale:
                self._unload(one.name)
            self._start_attempt(one)

    def _await_ready(self, operation: plan.AwaitReady) -> None:
        for one in await_ready(self.supervisord, operation.programs, self._readiness, observed=operation.observed):
            report = self.reports[one.program.name]
            report.pid, report.seconds["ready"] = one.pid, one.seconds
            if one.program.name in self._stopped_at:
                report.gap = one.ready_at - self._stopped_at[one.program.name]

    def _reload(self, operation: plan.Reload) -> None:
        name = operation.program.name
        if name not in self.supervisord.reread().changed:
            return
        report, self._stopped_at[name] = self.reports[name], time.monotonic()
        report.restarted, report.seconds["drain"] = True, self._unload(name)
        self._start_attempt(operation.program)
        self._await_ready(plan.AwaitReady((operation.program,)))

    def _hold(self, operation: plan.Hold) -> None:
        if self.run_dir and self._are_held(self.run_dir, operation.names):
            return
        self._let_go(plan.LetGo(operation.names))
        self._await_ready(operation.observed)
        self._replace(operation.retired)
        self._undo.clear()
        self.committed = False

    def _are_held(self, run_dir: Path, names: Collection[str]) -> bool:
        """Hold old consumers; return whether each has said in time that it takes nothing more, or has ended."""
        deadline = time.monotonic() + HELD_WITHIN
        try:
            programs = [report.change.intended for report in self.reports.values()]
            since = intake.hold(run_dir, names, max((one.min_uptime for one in programs if one), default=0))
        except OSError:
            return False
        while True:
            processes = self.supervisord.processes()
            up = [name for name in names if name in processes and processes[name].up]
            if all(intake.is_held(run_dir, name, since) for name in up):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL[0])

    def _retire(self, operation: plan.Retire) -> None:
        self._replace(operation)
        self._await_end(operation, self._told)

    def _replace(self, operation: plan.Retire) -> None:
        """Make what is ready outlive a reboot, and tell the old ones to stop, all of it or nothing."""
        with uninterrupted():
            for name in self.conf_dir.provisional() & {one.name for one in operation.ready} - set(self._spares):
                self.conf_dir.make_lasting(name)
            # From here on the old ones stop consuming, and until they are gone nothing leads back.
            self.committed = True
            self._told |= self._tell(old.name for old in operation.leaving if old.name not in self._told)
            for one in operation.ready:
                self._make_lasting_on_a_full_disk(one)
                self._point(plan.Point(one))

    def _point(self, operation: plan.Point) -> None:
        one = operation.program
        if one.log:
            try:
                point(self.app, one.program, one.log)
            except OSError as error:
                self.warnings.append(f"The stable name of {one.log} could not be set: {error}")

    # --- Their inverses; each returns a sentence

    def _let_go(self, operation: plan.LetGo) -> str:
        held = [name for name in operation.names if self.run_dir and intake.let_go(self.run_dir, name)]
        return " ".join(f"{name} takes tasks again." for name in held)

    def _withdraw(self, operation: plan.Withdraw) -> str:
        name = operation.name
        ended = self._stop({name: operation.wait})
        self._forget([name], unload=bool(ended))
        if ended:
            return f"{name} was stopped and removed."
        return f"{name} was told to stop, still finishes what it runs, and will not be started again."

    def _stop_again(self, operation: plan.StopAgain) -> str:
        self._stop_surely([operation.name])
        if operation.unload:
            self._remove(operation.name)
        return f"{operation.name} was stopped again, as before."

    def _restore(self, operation: plan.Restore) -> str:
        name = operation.name
        self._put_back(name)
        before, process = self.seen.processes.get(name), self.supervisord.processes().get(name)
        if not before or not before.up or (process and process.pid == before.pid != 0):
            return ""
        self._unload(name)
        return self._start_again(plan.StartAgain(name))

    def _start_again(self, operation: plan.StartAgain) -> str:
        name, before = operation.name, self.seen.processes.get(operation.name)
        if name in self.seen.files:
            self._put_back(name)
        process = self.supervisord.processes().get(name)
        if before and before.pid and process and process.pid == before.pid and process.up:
            return ""  # it was not stopped yet
        self._start_one(name)
        again = Generation(program_of(name), name, "", ready_timeout=plan.START_AGAIN)
        [ready] = await_ready(self.supervisord, [again])
        return f"{name} was started again (pid {ready.pid})."

    _METHODS: ClassVar[dict[type[Operation], Callable[[Any, Any], str | None]]] = {
        plan.Stop: _stop_first,
        plan.Write: _write,
        plan.Start: _start,
        plan.AwaitReady: _await_ready,
        plan.Reload: _reload,
        plan.Hold: _hold,
        plan.Retire: _retire,
        plan.Point: _point,
        plan.LetGo: _let_go,
        plan.Withdraw: _withdraw,
        plan.StopAgain: _stop_again,
        plan.Restore: _restore,
        plan.StartAgain: _start_again,
    }

    # --- Start

    def _start_attempt(self, one: Generation) -> None:
        """Start a program whose log and faults are reported. Raises NotReady."""
        self.log_starts[one.name] = log_size(one.log)
        try:
            self._start_one(one.name)
        except xmlrpc.client.Fault as fault:
            seen = f"supervisord can't start it: {fault.faultString}"
            if fault.faultCode in (Fault.NO_FILE, Fault.NOT_EXECUTABLE):
                raise NotReady(one, seen, missing=one.executable) from None
            process = self.supervisord.processes().get(one.name)
            error = process.error if process else ""
            raise NotReady.down(one, f"{seen} ({error})" if error else seen, error) from None

    def _start_one(self, name: str) -> None:
        self._let_go(plan.LetGo((name,)))
        self.supervisord.add(name)
        process = self.supervisord.processes().get(name)
        if process and process.state in ("BACKOFF", "STOPPING"):  # begin anew, with no failures counted
            self._stop_surely([name])
        self.supervisord.start(name)

    # --- Stop

    def _stop(self, waits: Mapping[str, float]) -> dict[str, float]:
        """Stop programs, all at once; wait their seconds at most; return the seconds of those that ended."""
        begun = time.monotonic()
        took: dict[str, float] = {}
        told: set[str] = set()
        pause = POLL[0]
        while True:
            processes = self.supervisord.processes()
            seconds = time.monotonic() - begun
            for name in set(waits) - set(took):
                process = processes.get(name)
                if process and process.up:
                    # Again, should it have ended by itself and been started once more meanwhile.
                    self.supervisord.stop(process)
                elif process is None or process.state != "STOPPING":
                    took[name] = seconds if name in told or process else 0.0
                told.add(name)
            if not any(seconds < wait for name, wait in waits.items() if name not in took):
                return took
            time.sleep(pause)
            pause = min(2 * pause, POLL[1])

    def _stop_surely(self, names: Iterable[str]) -> float:
        """Stop programs until no process is left; return the seconds it took. Raises OperatorError at the end."""
        waits = {name: self.seen.kill_wait(name) for name in names}
        took = self._stop(waits)
        for name in waits:
            if name not in took:
                raise OperatorError(
                    f"{name} did not exit after SIGKILL; refusing to start a second instance. Look at it: "
                    f"supervisorctl status {name}"
                )
        return max(took.values(), default=0.0)

    def _unload(self, name: str) -> float:
        """Stop a program and make supervisord forget its settings; return the seconds that it took to stop."""
        seconds = self._stop_surely([name])
        self._remove(name)
        return seconds

    def _remove(self, name: str) -> None:
        try:
            self.supervisord.remove(name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Fault.STILL_RUNNING:
                raise
            self._stop_surely([name])  # it had ended by itself, and supervisord started it once more
            self.supervisord.remove(name)

    # --- Retire

    def _tell(self, names: Iterable[str]) -> dict[str, float]:
        """Tell old generations to stop; return the seconds they took already, told by an earlier run, by name."""
        earlier: dict[str, float] = {}
        processes = self.supervisord.processes()
        for name in names:
            process = processes.get(name)
            if process and not process.up and name in self.seen.provisional:
                # Whole seconds: one that was killed must not seem to have ended a moment before.
                now = process.ended + 1 if process.down else time.time()
                earlier[name] = max(0.0, now - self.conf_dir.told_at(name))
                continue
            earlier[name] = 0.0
            if self.seen.was_ready(name):
                self.conf_dir.make_volatile(name)
            self.conf_dir.mark_told(name)
            if process and process.up:
                self.supervisord.stop(process)
        return earlier

    def _await_end(self, operation: plan.Retire, earlier: Mapping[str, float]) -> None:
        """Wait for old generations that were told to stop, and forget them. One that doesn't end is reported."""
        limits = {old.name: max(0.0, old.limit - earlier[old.name]) for old in operation.leaving}
        # What an earlier run told to stop has had its time: no run waits for it again.
        waits = {
            name: limit if operation.wait is None else min(limit, 0 if earlier[name] else operation.wait)
            for name, limit in limits.items()
        }
        for old in operation.leaving:
            draining = self.reports[old.reported_by].draining
            draining += [] if old.name in draining else [old.name]
        took = {name: seconds + earlier[name] for name, seconds in self._stop(waits).items()}
        for old in operation.leaving:
            name, report = old.name, self.reports[old.reported_by]
            if name in took:
                report.draining.remove(name)
                report.seconds["drain"] = max(report.seconds.get("drain", 0.0), took[name])
            elif waits[name] == limits[name]:
                self.warnings.append(
                    f"{name} still drains after {limits[name] + earlier[name]:.0f} s; supervisord kills it when its "
                    f"stopwaitsecs are over, and the next run removes it."
                )
            process = self.supervisord.processes().get(name)
            if process and was_killed(process, self.seen.stopwaitsecs.get(name, math.inf), took.get(name, 0.0)):
                report.killed.append(name)
                self.warnings.append(killed(name, self.seen.stopwaitsecs[name]))
        # What still drains keeps its link, by which the next run knows it.
        if operation.leaving:
            self._forget(took)

    # --- Files

    def _forget(self, names: Iterable[str], *, unload: bool = True) -> None:
        """Unload stopped programs, then delete their files: a file left behind is found by the next run."""
        for name in names:
            if unload:
                self._remove(name)
            self.conf_dir.put(name, None)
            self._let_go(plan.LetGo((name,)))
        try:
            self.supervisord.reread()
        except OperatorError as error:  # what was to go is gone; a bad file elsewhere can wait
            self.warnings.append(str(error))

    def _put_back(self, name: str) -> None:
        if self.conf_dir.restore(name, self.seen.files.get(name), lasting=name not in self.seen.provisional):
            self.supervisord.reread()

    def _make_lasting_on_a_full_disk(self, one: Generation) -> None:
        if one.name in self._spares:
            try:
                self.conf_dir.make_lasting_in_place_of(self._spares[one.name], one.name, one.conf)
            except OSError as error:
                self.warnings.append(
                    f"{self.conf_dir.file(one.name)} could not be written ({error.strerror}): a reboot would not "
                    f"start {one.name}. Make room (df -h {self.conf_dir.path}) and run this again."
                )
