"""Bring the programs of one manifest in, and what they replace out, without losing what works."""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.supervisor_conf import GENERATION, NAME, ConfDir, Program, family_of, prefix_of
from ansible.module_utils.supervisor_proof import NotProven, prove
from ansible.module_utils.supervisor_rpc import Fault, Process, Supervisord, Trouble

RUN_ON = 15.0
"""Seconds a generation that failed gets to stop before we report; the rest it drains by itself."""

POLL = (0.02, 0.2)
"""Seconds between two looks at what stops: at first, as what replaces it waits for that, and at most after doubling."""

STOP_MARGIN = 10.0
"""Seconds beyond stopwaitsecs, when supervisord sends KILL, until we stop waiting for a program to end."""

UNKNOWN_STOP = 600.0
"""Seconds to wait for a program whose conf is gone, so that its stopwaitsecs isn't known."""


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
) -> list[Step]:
    """Decide what becomes of every program that is intended or ours.

    `owned` are the texts of our conf files, `loaded_differs` the programs whose loaded settings are not the
    intended ones, `orphans` programs of ours that run without a conf file; all by name.
    """
    programs = list(programs)
    intended = {program.name for program in programs}
    leftovers = sorted({*owned, *orphans} - intended)
    steps = []
    for program in programs:
        olds = [name for name in leftovers if family_of(name) == program.family]
        process = processes.get(program.name)
        if process and program.name in loaded_differs:
            action = "restarted"
        elif process and process.up and process.state != "BACKOFF" and not olds:
            action = "unchanged" if owned.get(program.name) == program.conf else "rewritten"
        elif olds:
            action = "replaced" if program.strategy == "replace" else "handed_over"
        else:
            action = "started"
        pid = process.pid if process else None
        steps.append(Step(action, program.family, program.name, program, olds, pid))
    taken = {name for step in steps for name in step.olds}
    steps += [Step("removed", family_of(name), name) for name in leftovers if name not in taken]
    return steps


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

    def clear(self) -> None:
        """There is no way back any more."""
        self._calls.clear()

    def run(self) -> list[str]:
        """Go all the way back; return a sentence for each step, also for one that failed."""
        said = []
        while self._calls:
            try:
                said.append(self._calls.pop()())
            except (Trouble, NotProven, OSError, xmlrpc.client.Fault) as error:
                said.append(f"Going back failed in part: {error}.")
        return [sentence for sentence in said if sentence]


class Handover:
    """Carries out a plan against one supervisord."""

    def __init__(self, supervisord: Supervisord, conf_dir: ConfDir, stopwaitsecs: Mapping[str, int]) -> None:
        self.supervisord = supervisord
        self.conf_dir = conf_dir
        self.stopwaitsecs = stopwaitsecs
        self.undo = Undo()
        self.committed = False
        self.warnings: list[str] = []
        self._texts = conf_dir.owned()
        self._before = supervisord.processes()

    def run(self, steps: list[Step]) -> None:
        """Do it. Raises NotProven or Trouble; `undo` then leads back, unless `committed`."""
        for batch in self._batches([step for step in steps if step.program and step.action != "unchanged"]):
            self._bring_in(batch)
        self.committed = True
        self._retire([(step, step.name) for step in steps if step.action == "removed"])

    def _batches(self, steps: list[Step]) -> list[list[Step]]:
        """All at once, but for those that are to be handed over one by one."""
        single = [step for step in steps if _program(step).strategy == "one_by_one"]
        together = [step for step in steps if step not in single]
        return ([together] if together else []) + [[step] for step in single]

    def _bring_in(self, batch: list[Step]) -> None:
        stopped_at = time.monotonic()
        self._stop_first([step for step in batch if _program(step).strategy == "replace"])
        self._write([step for step in batch if step.action != "restarted"])
        self._start([step for step in batch if step.action not in ("restarted", "rewritten")], stopped_at)
        for step in batch:
            if step.action == "restarted":
                self._restart(step)
        # From here on the old ones stop consuming, and until they are gone nothing leads back.
        self.committed = True
        self._retire([(step, old) for step in batch for old in step.olds])
        self.committed = False
        for step in batch:  # should a later batch fail, what was handed over already goes back
            if _program(step).strategy != "replace":
                self._start_again_if_undone(step)

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

    def _write(self, steps: list[Step]) -> None:
        changed = [step for step in steps if self._texts.get(step.name) != _program(step).conf]
        for step in steps:
            new = step.name not in self._before or self._fallbacks(step)
            if new and step.action != "rewritten":
                self.undo.push(lambda step=step: self._take_away(_program(step)))
            elif step in changed:
                self.undo.push(lambda step=step: self._put_back(step.name))
        for step in changed:
            self.conf_dir.put(step.name, _program(step).conf)
        reread = self.supervisord.reread()
        for step in steps:
            if step.name in reread.changed:  # its file had been lost, so that this could not be foreseen
                step.action = "restarted"

    def _start(self, steps: list[Step], stopped_at: float) -> None:
        """Start these programs side by side and wait until all are proven."""
        steps = [step for step in steps if step.action != "restarted"]
        for step in steps:
            try:
                self._start_one(step.name)
            except xmlrpc.client.Fault as fault:
                raise NotProven(_program(step), f"supervisord can't start it: {fault.faultString}") from None
        for step, proof in zip(steps, prove(self.supervisord, map(_program, steps)), strict=True):
            step.pid = proof.pid
            step.seconds["ready"] = proof.ready_at - proof.begun
            if step.action in ("replaced", "restarted"):
                step.gap = proof.ready_at - stopped_at

    def _restart(self, step: Step) -> None:
        """Give one program that keeps its name its new settings: there is no side by side for it."""
        self.undo.push(lambda: self._put_back_and_start(step.name))
        stopped_at = time.monotonic()
        step.seconds["drain"] = self._stop_surely([step.name])
        self._remove(step.name)
        self.conf_dir.put(step.name, _program(step).conf)
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

    def _retire(self, leaving: list[tuple[Step, str]]) -> None:
        """Stop old generations, all at once, and forget them. One that doesn't end in time is reported."""
        waits = {}
        for step, name in leaving:
            own = step.program.stop_timeout if step.program else None
            # Whoever waits for stopwaitsecs wants to see the end, which comes a moment after it.
            early = own is not None and own < self.stopwaitsecs.get(name, 0)
            waits[name] = float(own) if early else self._kill_wait(name)
        drained = self._stop(waits)
        for step, name in leaving:
            if name in drained:
                step.seconds["drain"] = max(step.seconds.get("drain", 0.0), drained[name])
            else:
                step.draining.append(name)
                self.warnings.append(
                    f"{name} still drains after {waits[name]:.0f} s; supervisord kills it when its "
                    f"stopwaitsecs are over, and the next run forgets it."
                )
            if self._was_killed(name, drained.get(name, 0.0)):
                step.killed.append(name)
                self.warnings.append(
                    f"{name} did not finish within its stopwaitsecs ({self.stopwaitsecs[name]} s): "
                    f"supervisord killed it, what it ran is delivered again."
                )
        if leaving:
            self._forget(waits, late=set(waits) - set(drained))

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
                    f"{name} does not end, not even by KILL, and two at once must never be. Look at it: "
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

    def _was_up(self, name: str) -> bool:
        return name in self._before and self._before[name].up

    def _fallbacks(self, step: Step) -> list[str]:
        """Return the older generations that serve again if this one fails.

        Those that ran. In `replace` also a single one that didn't: a run that died stopped it and went no further.
        """
        ran = [old for old in step.olds if self._was_up(old)]
        if not ran and _program(step).strategy == "replace" and len(step.olds) == 1:
            return [old for old in step.olds if old in self._texts]
        return ran

    # The ways back. Each says in a sentence what it did.

    def _take_away(self, program: Program) -> str:
        name = program.name
        wait = self._kill_wait(name) if program.strategy == "replace" else min(RUN_ON, self._kill_wait(name))
        late = {name} - set(self._stop({name: wait}))
        self._forget([name], late)
        if late:
            return f"{name} was told to stop, still finishes what it runs, and will not be started again."
        return f"{name} was stopped and removed."

    def _put_back(self, name: str) -> str:
        self.conf_dir.put(name, self._texts.get(name))
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
        [proof] = prove(self.supervisord, [Program(family_of(name), name, "", ready_timeout=60)])
        return f"{name} was started again (pid {proof.pid})."


def _program(step: Step) -> Program:
    assert step.program is not None
    return step.program
