"""What a worker does every few seconds as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.worker import WorkController


def repeat(worker: WorkController, every: float, function: Callable[[], object]) -> None:
    """Call a function from the worker's timer, every so many seconds.

    Celery before 5.7 clears the timer when the connection is lost, and with it what is repeated: so it begins again.
    """
    timer = worker.timer
    clear = timer.clear

    def cleared() -> None:
        clear()
        timer.call_repeatedly(every, function)

    timer.call_repeatedly(every, function)
    timer.clear = cleared
