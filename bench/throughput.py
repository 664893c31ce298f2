#!/usr/bin/env python3
"""Measure publishing, working and round trips on one host, with what the kit renders beside Celery's defaults.

    python3 bench/throughput.py [HOST]          five minutes; writes bench/results/throughput.json
    python3 bench/throughput.py [HOST] --long   more often, and by number of processes, length of the queue and size of
                                                the payload: half an hour; adds series to the same file

HOST is a container that `site.yml` has set up. RabbitMQ, Redis, publisher and worker all run on it, in a vhost of their
own, with the virtualenv of its release and this tree's runtime. Both sides have a pool of two processes (prefork), the
same Redis and the same log level (INFO).

- publish: messages a second of one publisher. The peer is `delay` with Celery's defaults, which waits for no confirm.
- drain: no-ops a second, between the first and the last of a queue that was full before the worker started. What the
  counters take of it is the time in their own code, less what timing it takes, in a drain of its own: it is less than
  one drain differs from another.
- alone: Celery's defaults with one of the kit's settings, beside Celery's defaults. For drains that is the CPU that a
  task takes in the worker, RabbitMQ and Redis together: with all cores busy, it is what their rates depend on.
- round trip: from `delay` to the return of `get`, of a task that does nothing.
- mixed load: how long tasks of 10 ms wait beside some of 1 s and some with an ETA, and how late those with an ETA come.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from support.host import APP, CURRENT, Host  # noqa: E402
from tables import Row, write  # noqa: E402

TARGET = "/tmp/celery-ops-bench"
VHOST = "bench"
DEFAULTS, KIT = {"kind": "defaults"}, {"kind": "kit"}
SHORT = KIT | {"conf": {"worker_prefetch_multiplier": 16}}
"""A program for short tasks: options: [--prefetch-multiplier, "16"] (docs/your-app.md)."""
TIMED = SHORT | {"timed": True}
QUORUM = {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}
CONFIRMS = {"broker_transport_options": {"confirm_publish": True}}
LATE = {"task_acks_late": True, "task_reject_on_worker_lost": True}
SAFE = QUORUM | CONFIRMS | LATE | {"worker_prefetch_multiplier": 1}
"""What a task that is never lost needs of Celery and RabbitMQ; what the kit takes beyond it is its own doing."""
ALONE: tuple[tuple[str, str, str, dict[str, Any], dict[str, dict[str, Any]]], ...] = (
    (
        "drain",
        "us",
        "µs",
        {"number": 1000},
        {
            "quorum queue on a topic exchange": {"conf": QUORUM},
            "late acknowledgement": {"conf": LATE},
            "late, and no message ahead (prefetch 1)": {"conf": LATE | {"worker_prefetch_multiplier": 1}},
            "quorum queue, late, no message ahead": {"conf": SAFE},
            "time limits": {"conf": {"task_time_limit": 300, "task_soft_time_limit": 270}},
            "counters, heartbeat, task list": {"count": True},
            "no result": {"conf": {"task_ignore_result": True}},
        },
    ),
    (
        "publish",
        "rate",
        "/s",
        {"how": "each", "number": 1000},
        {
            "quorum queue on a topic exchange": {"conf": QUORUM},
            "confirms": {"conf": CONFIRMS},
            "confirms by a quorum queue": {"conf": QUORUM | CONFIRMS},
        },
    ),
    (
        "trip",
        "p50",
        "ms",
        {"number": 200},
        {
            "quorum queue on a topic exchange": {"conf": QUORUM},
            "confirms by a quorum queue": {"conf": QUORUM | CONFIRMS},
            "confirms by a quorum queue, late, no message ahead": {"conf": SAFE},
        },
    ),
)
"""One of the kit's settings at a time: what is measured, its value, its unit, how, and the settings."""
PROCESSES = (1, 2, 4, 8, 16)
LENGTHS = (1_000, 10_000, 100_000)
PAYLOADS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


class Bench:
    """The driver that runs on the host."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, verb: str, of: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        """Let the driver measure; return what it says."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps([verb, {"of": of, **arguments}]), file=self.process.stdin, flush=True)
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"bench: {verb} {of} {arguments} failed; see above")
        return json.loads(line)

    def by_turns(self, times: int, *asked: tuple[str, dict[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """Ask for each of them `times` times, in turns; return the medians of each number."""
        answers: list[list[dict[str, Any]]] = [[] for _ in asked]
        for _ in range(times):
            for found, (verb, of, arguments) in zip(answers, asked, strict=True):
                found.append(self.ask(verb, of, **arguments))
        return [
            {
                name: statistics.median(answer[name] for answer in found)
                for name, value in found[0].items()
                if isinstance(value, int | float)
            }
            for found in answers
        ]


@contextmanager
def bench_on(host: Host) -> Iterator[Bench]:
    """Put the driver and this tree's runtime on the host, with a vhost; take them away afterwards."""
    host.output(f"rm -rf {TARGET}; mkdir -p {TARGET}/runtime")
    for source, target in (("bench/throughput_host", TARGET), ("runtime", f"{TARGET}/runtime")):
        pack = ["tar", "--dereference", "--exclude=__pycache__", "-C", str(ROOT / source), "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            subprocess.run(["docker", "exec", "-i", host.name, "tar", "-xC", target], stdin=packed.stdout, check=True)
    policy = json.dumps({"dead-letter-exchange": "dead", "delivery-limit": 5})
    host.output(
        f"rabbitmqctl -q delete_vhost {VHOST} 2>&1; rabbitmqctl -q add_vhost {VHOST} && "
        f"rabbitmqctl -q set_permissions -p {VHOST} {APP} '.*' '.*' '.*' && "
        f"rabbitmqctl -q set_policy -p {VHOST} --apply-to queues kit '^kit' '{policy}'"
    )
    command = (
        f'. /etc/{APP}/env && cd {TARGET} && export CELERY_RESULT_BACKEND CELERY_BROKER_URL="${{CELERY_BROKER_URL%/*}}'
        f'/{VHOST}" && exec {CURRENT}/venv/bin/python drive.py'
    )
    words = ["docker", "exec", "-i", host.name, "sh", "-c", command]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Bench(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()
            host.output(f"rabbitmqctl -q delete_vhost {VHOST}; rm -rf {TARGET}")


def core(bench: Bench, more: int) -> Iterator[Row]:
    """Yield the rows. What is of less interest is measured `more` times."""
    unconfirmed = "delay, Celery's defaults, no confirms"
    many, each, peer = bench.by_turns(
        3,
        ("publish", KIT, {"how": "many"}),
        ("publish", KIT, {"how": "each", "number": 1000}),
        ("publish", DEFAULTS, {"how": "each"}),
    )
    yield Row("publish_many, confirmed", "/s", many["rate"], peer["rate"], unconfirmed, at_least=1.0)
    yield Row("publish one by one, confirmed", "/s", each["rate"], peer["rate"], unconfirmed)

    ours, short, timed, peer = bench.by_turns(3, *(("drain", of, {}) for of in (KIT, SHORT, TIMED, DEFAULTS)))
    row = ("/s", short["rate"], peer["rate"], "Celery's defaults")
    yield Row("drain of no-ops, 2 processes, 15 messages ahead for each", *row, at_least=0.9)
    for what, name in ((", the worker's main process", "main"), (", RabbitMQ", "broker")):
        yield Row(f"… CPU a task{what}", "µs", short[f"us_{name}"], peer[f"us_{name}"], "same run")
    yield Row("… memory of the main process", "MB", short["memory"] / 1e6, peer["memory"] / 1e6, "same run")
    row = ("µs", timed["us_counting"], 1e6 / short["rate"], "all of a task, 15 messages ahead")
    yield Row("… of which counting: outcome, time and wait of a task", *row, at_most=0.02)
    yield Row("drain of no-ops, no message ahead, as rendered", "/s", ours["rate"], peer["rate"], "Celery's defaults")

    ours, peer = bench.by_turns(3, ("trip", KIT, {}), ("trip", DEFAULTS, {}))
    yield Row("small round trip, p50", "ms", ours["p50"] * 1e3, peer["p50"] * 1e3, "Celery's defaults", at_most=1.0)
    yield Row("small round trip, p99", "ms", ours["p99"] * 1e3, peer["p99"] * 1e3, "same run")

    ours, peer = bench.by_turns(3, ("mixed", KIT, {}), ("mixed", DEFAULTS, {}))
    for what, name in (("wait of 10 ms tasks", "p99"), ("lateness of an ETA", "eta_p99")):
        row = ("ms", ours[name] * 1e3, peer[name] * 1e3, "Celery's defaults")
        yield Row(f"mixed load, {what}, p99", *row, at_most=1.0)

    for verb, value, unit, how, settings in ALONE:
        peer, *found = bench.by_turns(more, *((verb, DEFAULTS | one, how) for one in ({}, *settings.values())))
        scale = 1e3 if unit == "ms" else 1
        for name, one in zip(settings, found, strict=True):
            row = (unit, one[value] * scale, peer[value] * scale, "Celery's defaults")
            yield Row(f"{verb}, alone: {name}", *row)


def series(title: str, x_is: str, y_is: str, x: tuple[int, ...], lines: dict[str, list[float]]) -> dict[str, Any]:
    """A series as bench/page.py draws it."""
    return {"title": title, "x_is": x_is, "y_is": y_is, "x": x, "lines": lines}


def growth(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield the series of the long run."""
    sides = {"celery-ops": KIT, "Celery's defaults": DEFAULTS}

    def drains(asked: tuple[int, ...], name: str, of: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Drain with each value of what is asked for, of the side or as an argument."""
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for value in asked:
            # 200 MB at most.
            number = {"number": max(20, min(2000, 10**8 // value))} if name == "payload" else {}
            for side, one in sides.items():
                one, arguments = (one | {name: value}, {}) if of else (one, {name: value})
                found[side].append(bench.ask("drain", one, **number | arguments))
        return found

    def lines(found: dict[str, list[dict[str, Any]]], value: str) -> dict[str, list[float]]:
        return {side: [answer[value] for answer in answers] for side, answers in found.items()}

    for asked, name, x_is in (
        (PROCESSES, "slots", "processes"),
        (LENGTHS, "number", "tasks in the queue"),
        (PAYLOADS, "payload", "bytes of payload"),
    ):
        found = drains(asked, name, of=name == "slots")
        yield series(f"Drain by {x_is}", x_is, "tasks a second", asked, lines(found, "rate"))
        for value, whose in (("memory", "the worker's main process"), ("broker_memory", "the broker")):
            yield series(f"Memory of {whose} by {x_is}", x_is, "bytes", asked, lines(found, value))


def main() -> None:
    """Entry point."""
    words = [word for word in sys.argv[1:] if word != "--long"]
    host = Host(words[0] if words else "celery-ops-deploy-bookworm")
    with bench_on(host) as bench:
        is_long = "--long" in sys.argv
        rows = []
        for row in core(bench, 3 if is_long else 1):
            print(
                f"{row.what:55} {row.ours:10.1f} {row.peer:10.1f} {row.unit:3} {row.ratio:6.2f} {row.reached}",
                flush=True,
            )
            rows.append(row)
        more = {"series": list(growth(bench))} if is_long else {}
    path = write("throughput", rows, on="a Debian container with everything on it", **more)
    print(path)


if __name__ == "__main__":
    main()
