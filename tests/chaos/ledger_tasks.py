"""The ledger's tasks, added to an application under test: each execution leaves a line outside RabbitMQ and Redis."""

import os
import time
from pathlib import Path

from celery import shared_task

FOLDER = Path(os.environ.get("LEDGER_FOLDER", "/srv/petct/shared/ledger"))
RELEASE = Path(__file__).resolve().parents[1].name


def note(run: str, number: int, what: str) -> None:
    """Append one line; a single write in append mode is whole or absent."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    line = f"{number} {what} {time.time():.4f} {RELEASE} {os.getpid()}\n"
    with (FOLDER / run).open("ab", buffering=0) as ledger:
        ledger.write(line.encode())


@shared_task(name="ledger.work", ignore_result=True)
def work(run: str, number: int, seconds: float) -> None:
    """Task `number` of a run, which takes `seconds`."""
    note(run, number, "began")
    time.sleep(seconds)
    note(run, number, "done")


@shared_task(name="ledger.hold", ignore_result=True)
def hold(run: str, number: int, until: str) -> None:
    """Task `number` of a run, which goes on until a file is there, or for four minutes."""
    note(run, number, "began")
    deadline = time.monotonic() + 240
    while not Path(until).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    note(run, number, "done")
