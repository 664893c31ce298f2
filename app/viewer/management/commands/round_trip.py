"""`python manage.py round_trip`: one volume through broker, worker and result store, compared byte for byte."""

import json
import sys
import time
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandParser

from viewer import draw3d, services
from viewer.models import Record


class Command(BaseCommand):
    """Send loadArray for the record `demo` and check what comes back against the file."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --timeout."""
        parser.add_argument("--timeout", type=float, default=30, help="seconds to wait for the worker (default 30)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line of JSON; exit with 1 and a "reason" when the array did not make it."""
        started = time.monotonic()
        answer: dict[str, Any] = {"task": "loadArray", "shape": None, "seconds": None, "ok": False}
        reason = None
        try:
            answer["shape"], reason = round_trip(options["timeout"])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        answer["seconds"] = round(time.monotonic() - started, 3)
        answer["ok"] = reason is None
        self.stdout.write(json.dumps(answer if reason is None else answer | {"reason": reason}))
        if reason is not None:
            sys.exit(1)


def round_trip(timeout: float) -> tuple[list[int] | None, str | None]:
    """Return the shape that came back, and what is wrong with it, if anything."""
    record = Record.objects.filter(userID="demo").first()
    if record is None:
        return None, "There is no record with userID demo; make it with: python manage.py make_demo"
    array = services.volume_of(services.ask_for_volume(record), seconds=timeout)
    if array is None:
        return (
            None,
            f"No answer within {timeout:g} s: is a worker running, and does it consume the task's queue?",
        )
    shape = list(array.shape)
    expected = expected_array(record)
    if shape != list(record.shape) or array.dtype != expected.dtype or array.tobytes() != expected.tobytes():
        return shape, f"What came back ({array.dtype.str}, {shape}) differs from {record.filepath}."
    return shape, None


def expected_array(record: Record) -> np.ndarray:
    """Return the volume as this process reads it from the file."""
    return draw3d.loadArray(record.filepath, record.shape, record.dtype)
