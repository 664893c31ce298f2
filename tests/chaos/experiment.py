"""One fault under load: what was promised, what came of it, a line in the results."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from faults import Fault
from lab import until
from subject import ROOT, STEADY, Load, Subject

RESULTS = ROOT / ".cache/chaos/results.jsonl"


def experiment(fault: Fault, subject: Subject, tasks: int, rate: float) -> dict[str, Any]:
    """Do it with at least so many tasks confirmed, at so many a second; return (and keep) what was measured.

    Fails the test when the system is not as before in the promised time, or did not run as it should to begin with.
    """
    expected = set(subject.programs())
    assert not (reason := subject.amiss(expected)), f"before the fault: {reason}"
    with Load(subject, f"{fault.key}-{int(time.time())}"[-100:], rate) as load:
        run_for(STEADY, load)
        subject.mark()
        fault.inject(subject)
        if fault.heal:
            run_for(fault.lasts, load)
            subject.mark()
            fault.heal(subject)
        expected = expected_after(subject, expected)
        whole = seconds_until_whole(subject, expected, fault.promise)
        until(lambda: ticks(subject), 60, "a task's way there and back, and a tick of the scheduler after the fault")
        run_for(STEADY, load)
        until(lambda: load.publisher.confirmed >= tasks, tasks / rate * 2 + 60, f"{tasks} tasks confirmed")
        books = load.finish()
    assert not (reason := subject.amiss(expected)), f"at the end: {reason}"
    row = {
        "fault": fault.name,
        "promise": fault.promise,
        "doubles": fault.doubles,
        **{name: books[name] for name in ("attempted", "confirmed", "executed", "rerun", "samples", "wait_p99")},
        "without_consumer": books["without_consumer"],
        "lost": len(books["lost"]),
        "doubled": len(books["doubled"]),
        "recovery": max(books["recovery"], whole),
        "prompt": books["recovery"],
        "whole": whole,
        "host": subject.name,
        **subject.versions,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as results:
        results.write(json.dumps(row) + "\n")
    return row


def run_for(seconds: float, load: Load) -> None:
    """Let the load run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert load.thread.is_alive(), "the publisher has ended"
        time.sleep(0.1)


def expected_after(subject: Subject, expected: set[str]) -> set[str]:
    """Names of the programs that have to run now: those before, or those of a deploy that was part of the fault."""
    intended = set(Path(line).stem for line in subject.run("ls /etc/supervisor/conf.d").split())
    return intended or expected


def seconds_until_whole(subject: Subject, expected: set[str], promise: float) -> float:
    """Seconds from the end of the fault until programs and processes are one of each; fails after `promise`."""
    while reason := subject.amiss(expected):
        assert time.time() < subject.since + promise, f"not within {promise:g} s: {reason}\n{subject.log()}"
        time.sleep(0.5)
    return round(time.time() - subject.since, 2)


def ticks(subject: Subject) -> bool:
    """Tells whether a task goes there and back, and the scheduler has ticked since the fault."""
    said = subject.run(subject.in_release("celery-ops-prove -A petct --timeout 20"))
    found = json.loads(said.splitlines()[-1]) if said.startswith("{") else {}
    return bool(found.get("proved")) and found["tick_age"] < time.time() - subject.since
