"""Waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONGEST_PAUSE = 0.25


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true answer of `condition`; after `seconds` fail the test, saying what is missing."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)
    return answer
