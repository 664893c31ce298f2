#!/usr/bin/env python3
"""Volumes as results of tasks: `python3 bench/volumes.py HOST`, a host on which petct is deployed. Some 90 s.

- *loadArray*: a task of the reference application reads a volume of 110 x 110 x 187 voxels from a file and returns it
  as an array. Measured is the whole trip: publish, wait, array in hand; beside SET and GET of the same bytes with
  redis-py, which is the least that goes through the same Redis. On top of those two the trip has RabbitMQ, two
  processes of the worker and the file: a *small trip*, of a task that only says when it ran, says how much that is.
- *by reference*: the same trip where who sent the task reads on the same host (`celery_ops.read_here()`): the array
  goes through a file in memory. Beside it the same bytes written to a file there and read, and a small trip.
- *arrays*: store a result and have it in the client that waits for it, in one process: the kit's backend and arrays
  as they are, beside Celery's backend with JSON of nested lists, and with pickle.
- *memory*: by how much the peak of a process grows that makes and stores an array of 64 MiB, and of one that gets it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from support.host import Host  # noqa: E402
from tables import Row, write  # noqa: E402

ON_HOST = ROOT / "bench/on_host/volumes.py"
Samples = dict[str, list[float]]


def rows(found: dict[str, Samples | dict[str, Samples]]) -> list[Row]:
    """The table."""
    trips, forms, peaks = found["trips"], found["forms"], found["peaks"]
    made = [
        Row(f"`loadArray`, {dtype}", "ms", median(samples["load"]), median(samples["raw"]), "SET + GET", at_most=1.15)
        for dtype, samples in trips.items()
    ]
    made += [
        Row(
            f"`loadArray` by reference, {dtype}",
            "ms",
            median(samples["by_reference"]),
            median(samples["bare"]) + median(samples["small"]),
            "a file written and read, and a small trip",
            at_most=1.2,
        )
        for dtype, samples in trips.items()
    ]
    small = median([each for samples in trips.values() for each in samples["small"]])
    made.append(Row("of which a small trip, int16", "ms", small, made[0].ours, "`loadArray`"))
    array, lists = median(forms["arrays_by_lists"]), median(forms["lists"])
    made.append(Row("array of float32 as a result", "ms", array, lists, "JSON of lists", at_most=1 / 5))
    array, pickled = median(forms["arrays"]), median(forms["pickle"])
    made.append(Row("array of float32 as a result", "ms", array, pickled, "pickle", at_most=1 / 2))
    size = peaks["array"][0] / 2**20
    for what, side in (("worker", "writes"), ("caller", "reads")):
        made.append(Row(f"memory of the {what}, peak", "MiB", peaks[side][0] / 2**20, size, "array", at_most=2.2))
    return made


def main() -> None:
    """Entry point."""
    host = Host(sys.argv[1] if sys.argv[1:] else "celery-ops-deploy-bookworm")
    # Its worker runs the task; the script is a client of it, in the same release.
    said = host.output(host.in_release("python -"), stdin=ON_HOST.read_text())
    found = json.loads(said.splitlines()[-1])
    table = rows(found)
    for row in table:
        print(f"{row.what:32} {row.ours:8.1f} {row.peer:8.1f} {row.unit} {row.ratio:5.2f} ({row.peer_is})")
    write("volumes", table, on="a Debian 12 container with RabbitMQ, Redis and the worker", samples=found)


if __name__ == "__main__":
    main()
