"""Bring the programs of one manifest in, and what they replace out, without losing what works."""

from __future__ import annotations

import signal
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_conf import (
    GENERATION,
    NAME,
    ConfDir,
    NoSpace,
    Program,
    family_of,
    prefix_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_logs import point
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_proof import NotProven, blame, log_size, prove
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_rpc import Fault, Process, Supervisord, Trouble

START_AGAIN = 60
"""Seconds for an old generation that is started again."""

RUN_ON = 15.0
"""Seconds a generation that failed gets to stop before we report; the rest it drains by itself."""

POLL = (0.02, 0.2)
"""Seconds between two looks at what stops: at first, as what replaces it waits for that, and at most after doubling."""

STOP_MARGIN = 10.0
"""Seconds beyond stopwaitsecs, when supervisord sends KILL, until we stop waiting for a program to end."""

AGAIN = 10
"""Generations of one program, alike but for their name, that may drain at a time."""

UNKNOWN_STOP = 600.0
"""Seconds to wait for a program whose conf is gone, so that its stopwaitsecs isn't known."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks the module to end."""


@dataclass
class Step:
    """What is to be done, or was done, for one program."""

    action: str
    family: str
    name: str
    program: Program | None = None
    olds: list[str] = field(default_factory=list)
    pid: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    gap: float | None = None
    killed: list[str] = field(default_factory=list)
    draining: list[str] = field(default_factory=list)

    @property
    def brings_in(self) -> bool:
        """Whether a program is to be started, or its file to be written."""
        return self.program is not None and self.action not in ("unchanged", "drained")

    @property
    def changes(self) -> bool:
        """Whether anything is to be done, or was: an old generation that still drains is only looked at."""
        return self.action not in ("unchanged", "drained") or (
            self.action == "drained" and bool(set(self.olds) - set(self.draining))
        )

    def result(self) -> dict[str, Any]:
        """Return what the module reports of it."""
        return {
            "family": self.family,
            "name": self.name,
            "action": self.action,
            "from": self.olds,
            "pid": self.pid,
            "seconds": {key: round(value, 2) for key, value in self.seconds.items()},
            "gap": None if self.gap is None else round(self.gap, 2),
            "killed": self.killed,
            "draining": self.draining,
        }


def plan(
    programs: Iterable[Program],
    owned: Mapping[str, str],
    processes: Mapping[str, Process],
    loaded_differs: frozenset[str] | set[str],
    orphans: frozenset[str] | set[str],
    provisional: frozenset[str] | set[str] = frozenset(),
) -> list[Step]:
    """Decide what becomes of every program that is intended or ours.

    `owned` are the texts of our conf files, `loaded_differs` the programs whose loaded settings are not the
    intended ones, `orphans` programs of ours that run without a conf file, `provisional` those whose entry in conf.d
    would not outlive a reboot, or has not: not proven yet, or retiring; all by name.
    """
    programs = list(programs)
    intended = {program.name for program in programs}
    leftovers = sorted({*owned, *orphans} - intended)
    steps = []
    for program in programs:
        olds = [name for name in leftovers if family_of(name) == program.family]
        process = processes.get(program.name)
        serves = process and process.up and process.state != "BACKOFF" and program.name not in provisional
        is_written = owned.get(program.name) == program.conf
        if process and program.name in loaded_differs:
            action = "restarted"
        elif serves and not olds:
            action = "unchanged" if is_written else "rewritten"
        elif serves and is_written and not any(old in processes and processes[old].up for old in olds):
            action = "drained"
        elif olds:
            action = "replaced" if program.strategy == "replace" else "handed_over"
        else:
            action = "started"
        pid = process.pid if process else None
        steps.append(Step(action, program.family, program.name, program, olds, pid))
    taken = {name for step in steps for name in step.olds}
    gone = sorted({*leftovers, *provisional} - intended - taken)
    return steps + [Step("removed", family_of(name), name) for name in gone]


def one_that_can_run(
    program: Program,
    processes: Mapping[str, Process],
    owned: Iterable[str],
    provisional: frozenset[str] | set[str],
) -> Program:
    """The program, or the same as another generation where its own still drains: one name can't run twice.

    A run that goes back to a generation which is still at its last task starts it anew, beside itself.
    """
    for number in range(AGAIN):
        candidate = program.again(number)
        process = processes.get(candidate.name)
        if process and process.up and candidate.name in owned and candidate.name not in provisional:
            return candidate
    for number in range(AGAIN):
        candidate = program.again(number)
        process = processes.get(candidate.name)
        leaves = candidate.name in provisional or candidate.name not in owned
        if not (process and process.state == "STOPPING" and leaves):
            return candidate
    return program


def orphans_of(prefixes: Iterable[str], families: Iterable[str] | None, removed: Iterable[str]) -> set[str]:
    """Return those loaded groups without any conf file that are ours by name.

    With families, only `<family>-<8 hex digits>`: names alone prove little. Without, any family.
    """
    if families is not None:
        families = set(families)
        return {name for name in removed if GENERATION.search(name) and family_of(name) in families}
    return {name for name in removed if NAME.fullmatch(name) and prefix_of(name, prefixes) and GENERATION.search(name)}


class Undo:
    """The way back: what to call, newest first, to be where we began."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], str]] = []

    def push(self, call: Callable[[], str]) -> None:
        """Remember one step back, before the step forward is made."""
        self._calls.append(call)

    def __bool__(self) -> bool:
        """Whether a step was made that has a way back."""
        return bool(self._calls)

    def run(self) -> list[str]:
        """Go all the way back; return a sentence for each step, also for one that failed."""
        said = []
        while self._calls:
            try:
                said.append(self._calls.pop()())
            except (Trouble, NotProven, OSError, xmlrpc.client.Fault) as error:
                said.append(f"A rollback step failed: {str(error).rstrip('.')}.")
        return [sentence for sentence in said if sentence]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back what asks us to end, for a moment in which it would leave things half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Handover:
    """Carries out a plan against one supervisord.

    `drain_wait` limits the seconds to wait for what retires, None is without a limit; of programs that are handed
    over one by one only the last.
    """

    def __init__(
        self,
        supervisord: Supervisord,
        conf_dir: ConfDir,
        stopwaitsecs: Mapping[str, int],
        app: str,
        drain_wait: float | None = None,
    ) -> None:
        self.supervisord = supervisord
        self.conf_dir = conf_dir
        self.stopwaitsecs = stopwaitsecs
        self.app = app
        self.drain_wait = drain_wait
        self.undo = Undo()
        self.committed = False
        self.warnings: list[str] = []
        self.log_starts: dict[str, int] = {}
        """Where in its log the attempt of each program begins, in bytes."""
        self._texts = conf_dir.owned()
        self._provisional = conf_dir.provisional()
        self._before = supervisord.processes()
        # What is served by a regular file was proven once. So was what runs, should somebody have deleted its file.
        running = {name for name, process in self._before.items() if process.up}
        self._lasting = ({*self._texts} | running) - self._provisional
        self._files: dict[str, str] = {}  # where the disk is full: whose file a new generation gets in the end

    def run(self, steps: list[Step]) -> None:
        """Do it. Raises NotProven or Trouble; `undo` then leads back, unless `committed`."""
        self._stage(steps)
        batches = self._batches([step for step in steps if step.brings_in])
        leaving = [(step, step.name) for step in steps if step.action == "removed"]
        leaving += [(step, old) for step in steps if step.action == "drained" for old in step.olds]
        for batch in batches[:-1]:
            self._bring_in(batch, [], None)
            self.committed = False
            for step in batch:  # should a later batch fail, what was handed over already goes back
                if _program(step).strategy != "replace":
                    self._start_again_if_undone(step)
        self._bring_in(batches[-1] if batches else [], leaving, self.drain_wait)
        for step in steps:
            if step.action == "unchanged":
                self._point(step)

    def _batches(self, steps: list[Step]) -> list[list[Step]]:
        """All at once, but for those that are to be handed over one by one."""
        single = [step for step in steps if _program(step).strategy == "one_by_one"]
        together = [step for step in steps if step not in single]
        return ([together] if together else []) + [[step] for step in single]

    def _stage(self, steps: list[Step]) -> None:
        """Write all that will be needed: should there be no space for it, nothing has been touched yet."""
        for step in steps:
            if step.brings_in:
                text = _program(step).conf
                if self._is_volatile(step):
                    self.conf_dir.stage_link(step.name, text)
                    self._stage_file(step)
                elif not self.conf_dir.has(step.name, text) or step.name in self._provisional:
                    self.conf_dir.stage_file(step.name, text)
                    self.conf_dir.stage_backup(step.name)
            for old in step.olds if step.program else [step.name]:
                if self._is_proven(old):
                    self.conf_dir.stage_link(old, self._texts[old])
                    self.conf_dir.stage_backup(old)

    def _stage_file(self, step: Step) -> None:
        """Write the file of a new generation. On a full disk, as for a rollback, it gets an old one's in the end."""
        try:
            self.conf_dir.stage_file(step.name, _program(step).conf)
        except NoSpace:
            files = [old for old in step.olds if self._is_proven(old)]
            if not files:
                raise
            self._files[step.name] = files[0]

    def _is_volatile(self, step: Step) -> bool:
        """Return whether the program of this step is yet to be proven, so that no reboot may start it."""
        return step.action not in ("restarted", "rewritten") and step.name not in self._lasting

    def _bring_in(self, batch: list[Step], leaving: list[tuple[Step, str]], drain_wait: float | None) -> None:
        stopped_at = time.monotonic()
        self._stop_first([step for step in batch if _program(step).strategy == "replace"])
        self._enter([step for step in batch if step.action != "restarted"])
        self._start([step for step in batch if step.action not in ("restarted", "rewritten")], stopped_at)
        for step in batch:
            if step.action == "restarted":
                self._restart(step)
        leaving = leaving + [(step, old) for step in batch for old in step.olds]
        with uninterrupted():
            for name in self.conf_dir.provisional() & {step.name for step in batch} - {*self._files}:
                self.conf_dir.make_lasting(name)
            # From here on the old ones stop consuming, and until they are gone nothing leads back.
            self.committed = True
            earlier = self._tell(name for _, name in leaving)
            for step in batch:
                self._make_lasting_on_a_full_disk(step)
                self._point(step)
        self._retire(leaving, earlier, drain_wait)

    def _make_lasting_on_a_full_disk(self, step: Step) -> None:
        if step.name in self._files:
            try:
                self.conf_dir.make_lasting_in_place_of(self._files[step.name], step.name, _program(step).conf)
            except OSError as error:
                self.warnings.append(
                    f"{self.conf_dir.file(step.name)} could not be written ({error.strerror}): a reboot would not "
                    f"start {step.name}. Make room (df -h {self.conf_dir.path}) and run this again."
                )

    def _stop_first(self, steps: list[Step]) -> None:
        """Stop the old generations of these, all at once, before anything new starts."""
        for step in steps:
            self._start_again_if_undone(step)
        seconds = self._stop_surely(old for step in steps for old in step.olds)
        for step in steps:
            step.seconds["drain"] = seconds if step.olds else 0.0

    def _start_again_if_undone(self, step: Step) -> None:
        for old in self._fallbacks(step):
            self.undo.push(lambda old=old: self._start_again(old))

    def _enter(self, steps: list[Step]) -> None:
        """Put the new conf files where supervisord reads them."""
        for step in steps:
            name, text = step.name, _program(step).conf
            if self._is_volatile(step):
                self.undo.push(lambda step=step: self._take_away(_program(step)))
                self.conf_dir.make_volatile(name)
                continue
            starts = step.action != "rewritten" and not self._was_up(name)
            if starts and (self._fallbacks(step) or name not in self._before):
                self.undo.push(lambda name=name: self._stop_again(name))
            if not self.conf_dir.has(name, text):
                self.undo.push(lambda name=name: self._put_back(name))
                self.conf_dir.make_lasting(name)
        changed = self.supervisord.reread().changed if steps else frozenset()
        for step in steps:
            if step.name in changed:  # what was loaded is known only now that the file is right
                step.action = "restarted"

    def _start(self, steps: list[Step], stopped_at: float) -> None:
        """Start these programs side by side and wait until all are proven."""
        steps = [step for step in steps if step.action != "restarted"]
        for step in steps:
            self.log_starts[step.name] = log_size(_program(step).log)
            try:
                self._start_one(step.name)
            except xmlrpc.client.Fault as fault:
                raise self._not_started(_program(step), fault) from None
        for step, proof in zip(steps, prove(self.supervisord, map(_program, steps)), strict=True):
            step.pid = proof.pid
            step.seconds["ready"] = proof.ready_at - proof.begun
            if step.action in ("replaced", "restarted"):
                step.gap = proof.ready_at - stopped_at

    def _not_started(self, program: Program, fault: xmlrpc.client.Fault) -> NotProven:
        seen = f"supervisord can't start it: {fault.faultString}"
        if fault.faultCode in (Fault.NO_FILE, Fault.NOT_EXECUTABLE):
            return NotProven(program, seen, missing=program.executable)
        process = self.supervisord.processes().get(program.name)
        error = f" ({process.error})" if process and process.error else ""
        return NotProven(program, seen + error, **({"by_host": True} | blame(program, process)))

    def _restart(self, step: Step) -> None:
        """Give one program that keeps its name its new settings: there is no side by side for it."""
        self.undo.push(lambda: self._put_back_and_start(step.name))
        stopped_at = time.monotonic()
        step.seconds["drain"] = self._stop_surely([step.name])
        self._remove(step.name)
        if not self.conf_dir.has(step.name, _program(step).conf):
            self.conf_dir.make_lasting(step.name)
        self.supervisord.reread()
        step.action = "replaced"  # for the length of the start: now it is an ordinary one, with a gap
        try:
            self._start([step], stopped_at)
        finally:
            step.action = "restarted"

    def _start_one(self, name: str) -> None:
        self.supervisord.add(name)
        process = self.supervisord.processes().get(name)
        if process and process.state in ("BACKOFF", "STOPPING"):  # begin anew, with no failures counted
            self._stop_surely([name])
        self.supervisord.start(name)

    def _tell(self, names: Iterable[str]) -> dict[str, float]:
        """Tell old generations to stop; return the seconds they took already, told by an earlier run, by name."""
        earlier: dict[str, float] = {}
        processes = self.supervisord.processes()
        for name in names:
            process = processes.get(name)
            if process and not process.up and name in self._provisional:
                # Whole seconds: one that was killed must not seem to have ended a moment before.
                now = process.ended + 1 if process.down else time.time()
                earlier[name] = max(0.0, now - self.conf_dir.told_at(name))
                continue
            earlier[name] = 0.0
            if self._is_proven(name):
                self.conf_dir.make_volatile(name)
            self.conf_dir.mark_told(name)
            if process and process.up:
                self.supervisord.stop(process)
        return earlier

    def _retire(self, leaving: list[tuple[Step, str]], earlier: Mapping[str, float], drain_wait: float | None) -> None:
        """Wait for old generations that were told to stop, and forget them. One that doesn't end is reported."""
        limits = {}
        for step, name in leaving:
            own = step.program.stop_timeout if step.program else None
            # Whoever waits for stopwaitsecs wants to see the end, which comes a moment after it.
            early = own is not None and own < self.stopwaitsecs.get(name, 0)
            limits[name] = max(0.0, (float(own) if early else self._kill_wait(name)) - earlier[name])
            if name not in step.draining:
                step.draining.append(name)
        # What an earlier run told to stop has had its time: no run waits for it again.
        waits = {
            name: limit if drain_wait is None else min(limit, 0 if earlier[name] else drain_wait)
            for name, limit in limits.items()
        }
        took = {name: seconds + earlier[name] for name, seconds in self._stop(waits).items()}
        for step, name in leaving:
            if name in took:
                step.draining.remove(name)
                step.seconds["drain"] = max(step.seconds.get("drain", 0.0), took[name])
            elif waits[name] == limits[name]:
                self.warnings.append(
                    f"{name} still drains after {limits[name] + earlier[name]:.0f} s; supervisord kills it when its "
                    f"stopwaitsecs are over, and the next run removes it."
                )
            if self._was_killed(name, took.get(name, 0.0)):
                step.killed.append(name)
                self.warnings.append(
                    f"{name} did not finish within its stopwaitsecs ({self.stopwaitsecs[name]} s): "
                    f"supervisord killed it; its unfinished tasks are delivered again."
                )
        # What still drains keeps its link, by which the next run knows it.
        if leaving:
            self._forget(took)

    def _forget(self, names: Iterable[str], late: Iterable[str] = ()) -> None:
        """Unload stopped programs, then delete their files: a file left behind is found by the next run."""
        for name in names:
            if name not in late:
                self._remove(name)
            self.conf_dir.put(name, None)
        try:
            self.supervisord.reread()
        except Trouble as trouble:  # what was to go is gone; a bad file elsewhere can wait
            self.warnings.append(str(trouble))

    def _remove(self, name: str) -> None:
        try:
            self.supervisord.remove(name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Fault.STILL_RUNNING:
                raise
            self._stop_surely([name])  # it had ended by itself, and supervisord started it once more
            self.supervisord.remove(name)

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
        """Stop programs until no process is left; return the seconds it took. Raises Trouble at the end."""
        waits = {name: self._kill_wait(name) for name in names}
        took = self._stop(waits)
        for name in waits:
            if name not in took:
                raise Trouble(
                    f"{name} did not exit after SIGKILL; refusing to start a second instance. Look at it: "
                    f"supervisorctl status {name}"
                )
        return max(took.values(), default=0.0)

    def _kill_wait(self, name: str) -> float:
        return self.stopwaitsecs[name] + STOP_MARGIN if name in self.stopwaitsecs else UNKNOWN_STOP

    def _was_killed(self, name: str, seconds: float) -> bool:
        process = self.supervisord.processes().get(name)
        return bool(
            process
            and name in self.stopwaitsecs
            and process.down
            and process.exitstatus == -1
            and seconds >= self.stopwaitsecs[name]
        )

    def _is_proven(self, old: str) -> bool:
        """Return whether the entry of an older generation was a regular file."""
        return old in self._texts and old not in self._provisional

    def _was_up(self, name: str) -> bool:
        return name in self._before and self._before[name].up

    def _fallbacks(self, step: Step) -> list[str]:
        """Return the older generations that serve again if this one fails.

        Those that ran. In `replace` it is one, if possible one that was proven: a run that died may have stopped it,
        and started another.
        """
        ran = [old for old in step.olds if self._was_up(old)]
        if _program(step).strategy != "replace":
            return ran
        proven = [old for old in step.olds if self._is_proven(old)]
        candidates = [old for old in ran if old in proven] or proven or ran
        return candidates if len(candidates) == 1 else ran

    def _point(self, step: Step) -> None:
        """Let the program's stable log name lead to the log of this generation."""
        if step.program and step.program.log:
            try:
                point(self.app, step.family, step.program.log)
            except OSError as error:
                self.warnings.append(f"The stable name of {step.program.log} could not be set: {error}")

    # The ways back. Each says in a sentence what it did.

    def _take_away(self, program: Program) -> str:
        name = program.name
        wait = self._kill_wait(name) if program.strategy == "replace" else min(RUN_ON, self._kill_wait(name))
        late = {name} - set(self._stop({name: wait}))
        self._forget([name], late)
        if late:
            return f"{name} was told to stop, still finishes what it runs, and will not be started again."
        return f"{name} was stopped and removed."

    def _stop_again(self, name: str) -> str:
        self._stop_surely([name])
        if name not in self._before:
            self._remove(name)
        return f"{name} was stopped again, as before."

    def _put_back(self, name: str) -> str:
        if self.conf_dir.restore(name, self._texts.get(name), lasting=name not in self._provisional):
            self.supervisord.reread()
        return ""

    def _put_back_and_start(self, name: str) -> str:
        self._stop_surely([name])
        self._remove(name)
        self._put_back(name)
        return self._start_again(name) if self._was_up(name) else f"{name} is stopped, as it was."

    def _start_again(self, name: str) -> str:
        if name in self._texts:
            self._put_back(name)
        self._start_one(name)
        [proof] = prove(self.supervisord, [Program(family_of(name), name, "", ready_timeout=START_AGAIN)])
        return f"{name} was started again (pid {proof.pid})."


def _program(step: Step) -> Program:
    assert step.program is not None
    return step.program
