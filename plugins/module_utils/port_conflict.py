"""A program that ends because a port that it opens is taken, by its old generation it may be: told by its log."""

from __future__ import annotations

import re
from collections.abc import Iterable

TAKEN = re.compile(r"\[Errno 98\]|address already in use", re.IGNORECASE)
"""Python's words, and asyncio's."""
LAST = 40
"""Lines of the log that tell of the end; before them a program may have tried another port."""


def taken_port(log: Iterable[str], old: Iterable[str]) -> str:
    """Return what a log says of a port that is taken, and what to write; "" where it says nothing of one.

    `old` are the generations of the program that run.
    """
    if not any(TAKEN.search(line) for line in list(log)[-LAST:]):
        return ""
    told = "It opens a port that is taken, for metrics perhaps (look: ss -ltnp)"
    if running := ", ".join(sorted(old)):
        return (
            f"{told}. A deploy runs it beside the old one, {running}, which may have that port. To let that one end "
            "first, write handover: replace (in celery_worker_programs; for the web program: celery_web_handover)."
        )
    return f"{told}, by another program: each that imports the application opens what the import opens."
