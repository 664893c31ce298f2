"""One fault under load: what was promised, what came of it, a line in the results."""

from __future__ import annotations

import time
from typing import Any

from faults import Fault
from subject import STEADY, Load, Subject
from support.results import keep
from support.wait import wait_until


def experiment(fault: Fault, subject: Subject, tasks: int, rate: float) -> dict[str, Any]:
    """Do it with at least so many tasks confirmed, at so many a second; return, and keep, what was measured.

    Fails the test when the system is not as before in the promised time; that is kept, too.
    """
    row = {"fault": fault.name, "promise": fault.promise, "doubles": fault.doubles, "host": subject.name}
    row |= subject.versions
    try:
        row |= measured(fault, subject, tasks, rate)
    except Exception as error:
        row["failed"] = str(error)[:1000]
        raise
    finally:
        if "failed" in row or "lost" in row:  # not where somebody interrupts
            keep(row)
    return row


def measured(fault: Fault, subject: Subject, tasks: int, rate: float) -> dict[str, Any]:
    """Do it, and return the numbers."""
    # A long fault gets its tasks while it lasts: what piles up is worked off after it, and is not what is measured.
    rate = min(rate, tasks / fault.lasts) if fault.lasts else rate
    expected = subject.intended()
    wait_until(lambda: not subject.amiss(expected), 60, f"a system without a fault: {subject.amiss(expected)}")
    with Load(subject, f"{fault.key}-{int(time.time())}"[-100:].lstrip("_"), rate) as load:
        run_for(STEADY, load)
        subject.mark()
        fault.inject(subject)
        if fault.end:
            try:
                run_for(fault.lasts, load)
            finally:
                subject.mark()
                fault.end(subject)
        expected = subject.intended()
        whole = seconds_until_whole(subject, expected, fault.promise)
        wait_until(subject.ticks, 60, "a task that comes back, and a tick of the scheduler after the fault")
        run_for(STEADY, load)
        wait_until(lambda: load.publisher.confirmed >= tasks, tasks / rate * 2 + 60, f"{tasks} tasks confirmed")
        numbers = load.finish()
    assert not (reason := subject.amiss(expected)), f"at the end: {reason}"
    names = ("attempted", "confirmed", "executed", "rerun", "samples", "without_consumer", "wait_p99")
    return {
        **{name: numbers[name] for name in names},
        "lost": len(numbers["lost"]),
        "doubled": len(numbers["doubled"]),
        "recovery": max(numbers["recovery"], whole),
        "prompt": numbers["recovery"],
        "whole": whole,
    }


def run_for(seconds: float, load: Load) -> None:
    """Let the load run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert load.thread.is_alive(), "the publisher has ended"
        time.sleep(0.1)


def seconds_until_whole(subject: Subject, expected: set[str], promise: float) -> float:
    """Seconds from the end of the fault until programs and processes are one of each; fails after `promise`."""
    while reason := subject.amiss(expected):
        assert time.time() < subject.since + promise, f"not within {promise:g} s: {reason}\n{subject.diagnosis()}"
        time.sleep(0.5)
    return round(time.time() - subject.since, 2)
