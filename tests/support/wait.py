"""Waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONGEST_PAUSE = 1.0
"""Seconds; a look at a host takes a tenth of a second of a processor, and other tests run beside this one."""


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true answer of `condition`; after `seconds` fail the test, saying what is missing."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)
    return answer
