"""Plan a handover: what becomes of each program, and the operations that do it, each with its inverse.

Nothing here looks at the host or changes it. To hand `a-1` over to `a-2`:

    Write a-2          undone by Withdraw a-2
    Start a-2
    AwaitReady a-2
    Retire a-1         undone by StartAgain a-1 while other programs are still to come

With the strategy `replace`, Stop a-1 is the first operation, undone by StartAgain a-1.

Where producers are told from the rest, they start when the new consumers are ready and the old ones take nothing more,
so that no task of the new release reaches the old one; then all of them are observed at once:

    Write, Start, AwaitReady consumers      not observed yet
    Hold the old consumers                  undone by LetGo
    Write, Start producers
    AwaitReady all
    Retire all
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import GENERATION, program_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import (
    AGAIN,
    NAME,
    Generation,
    prefix_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import ProcessInfo

START_AGAIN = 60
"""Seconds for an old generation that is started again."""

RUN_ON = 15.0
"""Seconds a generation that failed gets to stop before we report; the rest it drains by itself."""

STOP_MARGIN = 10.0
"""Seconds beyond stopwaitsecs, when supervisord sends KILL, until we stop waiting for a program to end."""

UNKNOWN_STOP = 600.0
"""Seconds to wait for a program whose conf is gone, so that its stopwaitsecs isn't known."""

# What becomes of a program, as the module reports it.
UNCHANGED, STARTED, HANDED_OVER, REPLACED = "unchanged", "started", "handed_over", "replaced"
RESTARTED, REWRITTEN, DRAINED, REMOVED = "restarted", "rewritten", "drained", "removed"


@dataclass(frozen=True)
class Seen:
    """What was found on the host before anything was done; programs by name."""

    files: Mapping[str, str] = field(default_factory=dict)
    """The texts of our conf files."""
    provisional: Collection[str] = ()
    """Whose entry in conf.d does not outlive a reboot, or has not: not ready yet, or retiring."""
    processes: Mapping[str, ProcessInfo] = field(default_factory=dict)
    stale: Collection[str] = ()
    """Intended programs that supervisord has loaded with other settings."""
    orphans: Collection[str] = ()
    """Programs of ours that run without a conf file."""
    stopwaitsecs: Mapping[str, int] = field(default_factory=dict)

    def is_up(self, name: str) -> bool:
        """Return whether it ran, or supervisord kept trying."""
        return name in self.processes and self.processes[name].up

    def was_ready(self, name: str) -> bool:
        """Return whether its conf file is one that a reboot starts: it was ready once."""
        return name in self.files and name not in self.provisional

    def is_lasting(self, name: str) -> bool:
        """Return whether it was ready once, also where its conf file was deleted since."""
        return (name in self.files or self.is_up(name)) and name not in self.provisional

    def kill_wait(self, name: str) -> float:
        """Return the seconds after which no process of it is left that was told to stop."""
        return self.stopwaitsecs[name] + STOP_MARGIN if name in self.stopwaitsecs else UNKNOWN_STOP


@dataclass(frozen=True)
class Change:
    """What becomes of one program; `olds` are the older generations that it takes over from."""

    action: str
    name: str
    intended: Generation | None = None
    olds: tuple[str, ...] = ()
    draining: tuple[str, ...] = ()
    """Of `olds`, those that were told to stop before and that this run does not wait for."""

    @property
    def program(self) -> str:
        """What stays the same from one generation to the next."""
        return self.intended.program if self.intended else program_of(self.name)

    @property
    def is_change(self) -> bool:
        """Whether anything is to be done: an old generation that still drains is only looked at."""
        return self.action != UNCHANGED and not (self.action == DRAINED and set(self.olds) <= set(self.draining))


# --- What becomes of the programs


def changes(programs: Collection[Generation], seen: Seen, *, waits: bool = True) -> list[Change]:
    """Decide what becomes of every program that is intended or ours. `waits`: also for what drains already."""
    intended = {one.name for one in programs}
    leftovers = sorted({*seen.files, *seen.orphans} - intended)
    decided = []
    for one in programs:
        olds = tuple(old for old in leftovers if program_of(old) in one.predecessors)
        decided.append(_change(one, olds, seen, waits))
    gone = {*leftovers, *seen.provisional} - intended - {old for change in decided for old in change.olds}
    return decided + [Change(REMOVED, name) for name in sorted(gone)]


def _change(one: Generation, olds: tuple[str, ...], seen: Seen, waits: bool) -> Change:
    process = seen.processes.get(one.name)
    serves = process and process.up and process.state != "BACKOFF" and one.name not in seen.provisional
    is_written = seen.files.get(one.name) == one.conf
    draining: tuple[str, ...] = ()
    if process and one.name in seen.stale:
        action = RESTARTED
    elif serves and not olds:
        action = UNCHANGED if is_written else REWRITTEN
    elif serves and is_written and not any(map(seen.is_up, olds)):
        action = DRAINED
        if not waits:
            draining = tuple(old for old in olds if old in seen.processes and seen.processes[old].state == "STOPPING")
    elif olds:
        action = REPLACED if one.strategy == "replace" else HANDED_OVER
    else:
        action = STARTED
    return Change(action, one.name, one, olds, draining)


def olds_of(one: Generation, seen: Seen) -> list[str]:
    """Return the older generations that are there and that this one takes over from."""
    return sorted(old for old in {*seen.files, *seen.orphans} - {one.name} if program_of(old) in one.predecessors)


def stops_first(one: Generation, seen: Seen) -> Generation:
    """Return the generation; to replace the older ones, where one that runs is none that it may start beside."""
    if one.beside and any(seen.is_up(old) and one.beside not in seen.files.get(old, "") for old in olds_of(one, seen)):
        return replace(one, strategy="replace")
    return one


def able_to_run(one: Generation, seen: Seen) -> Generation:
    """Return the generation, or the same under another name where its own still drains: one name can't run twice.

    A run that goes back to a generation which is still at its last task starts it anew, beside itself.
    """
    candidates = one.names
    for candidate in candidates:
        if seen.is_up(candidate.name) and seen.was_ready(candidate.name):
            return candidate
    for candidate in candidates:
        process = seen.processes.get(candidate.name)
        if not (process and process.state == "STOPPING" and not seen.was_ready(candidate.name)):
            return candidate
    return one


def restarted(one: Generation, seen: Seen) -> Generation:
    """Return the same generation under a name that nothing on the host has, to take over from the one that runs.

    Later runs know it again: `able_to_run` returns the name under which it runs.
    """
    for candidate in one.names:
        if candidate.name not in seen.files and candidate.name not in seen.processes:
            return candidate
    raise OperatorError(
        f"{one.program}: {AGAIN} of its generations still run or finish their tasks, so that it can't be restarted "
        "once more. Wait until some are done: ansible-playbook playbooks/status.yml"
    )


def orphans_of(prefixes: Iterable[str], programs: Iterable[str] | None, removed: Iterable[str]) -> set[str]:
    """Return those loaded groups without any conf file that are ours by name.

    With programs, only `<program>-<8 hex digits>`: a name alone says little. Without, any program.
    """
    generations = {name for name in removed if GENERATION.search(name)}
    if programs is not None:
        programs = set(programs)
        return {name for name in generations if program_of(name) in programs}
    return {name for name in generations if NAME.fullmatch(name) and prefix_of(name, prefixes)}


# --- Operations


@dataclass(frozen=True)
class Operation:
    """One thing to do; `undo` is its inverse, the last one first."""

    undo: tuple[Operation, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Stop(Operation):
    """Stop old generations, all at once, and wait until they have ended: their successors can't run beside them."""

    names: tuple[str, ...]
    successors: tuple[str, ...]


@dataclass(frozen=True)
class Write(Operation):
    """Put a conf file where supervisord reads it. One that is not `lasting` is gone after a reboot."""

    program: Generation
    lasting: bool
    spare: str = ""
    """The old generation whose file it gets in the end where the disk is full."""


@dataclass(frozen=True)
class Start(Operation):
    """Start programs side by side, without waiting."""

    programs: tuple[Generation, ...]


@dataclass(frozen=True)
class AwaitReady(Operation):
    """Wait until all of them are ready and stayed up; if they are `observed` later, until they are ready."""

    programs: tuple[Generation, ...]
    observed: bool = True


@dataclass(frozen=True)
class Reload(Operation):
    """Restart a program, and wait until it is ready, if supervisord has loaded other settings than are in its file."""

    program: Generation


@dataclass(frozen=True)
class Leaving:
    """An old generation that is told to stop; `reported_by` is the program whose report tells of it."""

    name: str
    reported_by: str
    limit: float
    """Seconds until it is left to drain by itself."""


@dataclass(frozen=True)
class Retire(Operation):
    """Make what is ready outlive a reboot, and tell the old generations to stop; from here on nothing leads back.

    Then wait for them, `wait` seconds at most (None: each for its own limit), and forget them.
    """

    leaving: tuple[Leaving, ...]
    ready: tuple[Generation, ...]
    wait: float | None = None


@dataclass(frozen=True)
class Hold(Operation):
    """Hold old consumers: they take nothing more, and may still be needed; what follows publishes for the new ones.

    Where one can't be held, as its release was packed by an older version of the kit, the new ones are observed now and
    the old ones told to stop; from then on nothing leads back to them.
    """

    names: tuple[str, ...]
    observed: AwaitReady
    retired: Retire


@dataclass(frozen=True)
class Point(Operation):
    """Make the stable name of a program's log lead to this generation's."""

    program: Generation


# Inverses. Each looks at what is there: it may be called for an operation that was only half done.


@dataclass(frozen=True)
class StartAgain(Operation):
    """Start an old generation again, from the file that it had."""

    name: str


@dataclass(frozen=True)
class Withdraw(Operation):
    """Stop a new generation and remove it; after `wait` seconds it goes on to drain by itself."""

    name: str
    wait: float


@dataclass(frozen=True)
class LetGo(Operation):
    """Let old consumers go on that were held."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class StopAgain(Operation):
    """Stop a program that did not run before, and unload it if it was not loaded."""

    name: str
    unload: bool


@dataclass(frozen=True)
class Restore(Operation):
    """Give a program the file and the settings back that it had."""

    name: str


# --- The operations of a handover


def plan(
    decided: Collection[Change], seen: Seen, drain_wait: float | None = None, producers: Collection[str] = ()
) -> list[Operation]:
    """Return the operations for these changes, in order.

    All programs go at once, but for those whose strategy is `rolling`: these follow, one after the other. `drain_wait`
    limits the wait for the old generations at the end. `producers` are the programs that send tasks to the others.
    """
    *earlier, last = _batches(decided, producers) or [[]]
    others = [change for change in decided if change.action in (REMOVED, DRAINED)]
    operations: list[Operation] = []
    for change in decided:
        if change.action == UNCHANGED and change.intended:
            operations.append(Point(change.intended))
    for batch in earlier:
        operations += [*_bring_in(batch, seen), _retire(batch, [], seen, None)]
    return [*operations, *_bring_in_order(last, others, seen, producers), _retire(last, others, seen, drain_wait)]


Batch = list[tuple[Change, Generation]]
"""What goes at once."""


def _batches(decided: Iterable[Change], producers: Collection[str]) -> list[Batch]:
    """Return what is to be brought in, by what goes at once; producers go with the last of the others."""
    incoming = [
        (change, change.intended) for change in decided if change.intended and change.action not in (UNCHANGED, DRAINED)
    ]
    publishing = [pair for pair in incoming if pair[1].program in producers]
    others = [pair for pair in incoming if pair not in publishing]
    rolling = [pair for pair in others if pair[1].strategy == "rolling"]
    together = [pair for pair in others if pair[1].strategy != "rolling"]
    batches = ([together] if together else []) + [[pair] for pair in rolling]
    if publishing:
        batches[-1:] = [[*batches[-1], *publishing] if batches else publishing]
    return batches


def _bring_in_order(batch: Batch, others: list[Change], seen: Seen, producers: Collection[str]) -> list[Operation]:
    """Bring in the consumers, then the producers; without producers, or where nothing else changes, all at once."""
    publishing = [pair for pair in batch if pair[1].program in producers]
    consuming = [pair for pair in batch if pair not in publishing]
    removed = [change for change in others if change.action == REMOVED and change.program not in producers]
    retire = _retire(consuming, removed, seen, 0)
    stopped = {old for change, one in consuming if one.strategy == "replace" for old in change.olds}
    held = tuple(one.name for one in retire.leaving if seen.is_up(one.name) and one.name not in stopped)
    if not publishing or not (consuming or held):
        return list(_bring_in(batch, seen))
    before, after = (list(_bring_in(part, seen, observed=False)) for part in (consuming, publishing))
    ready = AwaitReady(_awaited(before))
    hold = [Hold(held, ready, retire, undo=(LetGo(held),))] if held else []
    if held and isinstance(after[0], Stop):  # undone from the end: the consumers first, a scheduler may take a while
        after[0] = replace(after[0], undo=(*after[0].undo, LetGo(held)))
    return [*before, *hold, *after, AwaitReady((*ready.programs, *_awaited(after)))]


def _awaited(operations: Iterable[Operation]) -> tuple[Generation, ...]:
    return tuple(one for each in operations if isinstance(each, AwaitReady) for one in each.programs)


def _bring_in(batch: Batch, seen: Seen, observed: bool = True) -> Iterator[Operation]:
    replacing = [change for change, one in batch if one.strategy == "replace" and change.olds]
    if replacing:
        yield Stop(
            tuple(old for change in replacing for old in change.olds),
            tuple(change.name for change in replacing),
            undo=tuple(StartAgain(old) for change in replacing for old in _fallbacks(change, seen)),
        )
    reloading = [(change, one) for change, one in batch if change.action in (REWRITTEN, RESTARTED)]
    starting = [(change, one) for change, one in batch if change.action not in (REWRITTEN, RESTARTED)]
    yield from (_write(change, one, seen) for change, one in batch if change.action != RESTARTED)
    if starting:
        programs = tuple(one for _, one in starting)
        undo = tuple(
            StopAgain(one.name, unload=one.name not in seen.processes)
            for change, one in starting
            if seen.is_lasting(one.name)
            and not seen.is_up(one.name)
            and (_fallbacks(change, seen) or one.name not in seen.processes)
        )
        yield Start(programs, undo=undo)
        yield AwaitReady(programs, observed)
    # What is restarted has a gap: only when everything else is ready.
    for change, one in reloading:
        if change.action == RESTARTED:
            yield _write(change, one, seen)
        was_down = change.action == RESTARTED and not seen.is_up(one.name)
        yield Reload(one, undo=(StopAgain(one.name, unload=True),) if was_down else ())


def _write(change: Change, one: Generation, seen: Seen) -> Write:
    if change.action in (REWRITTEN, RESTARTED) or seen.is_lasting(one.name):
        return Write(one, lasting=True, undo=(Restore(one.name),))
    spare = next((old for old in change.olds if seen.was_ready(old)), "")
    wait = seen.kill_wait(one.name)
    wait = wait if one.strategy == "replace" else min(RUN_ON, wait)
    return Write(one, lasting=False, spare=spare, undo=(Withdraw(one.name, wait),))


def _retire(batch: Batch, others: list[Change], seen: Seen, drain_wait: float | None) -> Retire:
    leaving = []
    for change in [*others, *(change for change, _ in batch)]:
        for name in change.olds if change.intended else (change.name,):
            own, stopwaitsecs = change.intended and change.intended.stop_timeout, seen.stopwaitsecs.get(name, 0)
            # Whoever waits for stopwaitsecs wants to see the end, which comes a moment after it.
            limit = float(own) if own is not None and own < stopwaitsecs else seen.kill_wait(name)
            leaving.append(Leaving(name, change.name, limit))
    # Should a later batch fail, what was handed over already goes back.
    undo = [StartAgain(old) for change, one in batch if one.strategy != "replace" for old in _fallbacks(change, seen)]
    return Retire(tuple(leaving), tuple(one for _, one in batch), drain_wait, undo=tuple(undo))


def _fallbacks(change: Change, seen: Seen) -> list[str]:
    """Return the older generations that serve again if this one fails.

    Those that ran. In `replace` it is one, if possible one that was ready: a run that died may have stopped it, and
    started another.
    """
    if not change.intended:
        return []
    ran = [old for old in change.olds if seen.is_up(old)]
    if change.intended.strategy != "replace":
        return ran
    ready = [old for old in change.olds if seen.was_ready(old)]
    candidates = [old for old in ran if old in ready] or ready or ran
    return candidates if len(candidates) == 1 else ran


def seconds_back(operations: Iterable[Operation], seen: Seen) -> float:
    """Return the seconds that undoing all of it takes at most."""
    seconds = 0.0
    for inverse in (inverse for operation in operations for inverse in operation.undo):
        if isinstance(inverse, Withdraw):
            seconds += inverse.wait
        elif isinstance(inverse, StartAgain):
            seconds += START_AGAIN
        elif isinstance(inverse, (StopAgain, Restore)):
            seconds += START_AGAIN + seen.kill_wait(inverse.name)
    return seconds
