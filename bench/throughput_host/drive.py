"""Runs on the host: measures what `bench/throughput.py` asks for in JSON, one request a line, an answer a line.

Each measurement is made by processes of its own, with the settings of one side (`Side`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WAIT = 120.0
"""Seconds after which a measurement has failed."""

SAFE = ("worker", "--soft-time-limit", "270", "--time-limit", "300", "--without-gossip", "--without-mingle")
"""What the kit writes on a worker's command line, beside what both sides have."""


class Side:
    """One way to configure application and worker: {"kind": "kit" or "defaults", "conf": {...}, "count": bool,
    "single": bool, "timed": bool}.
    """

    def __init__(self, of: dict[str, Any]) -> None:
        self.of, self.name = of, f"{of['kind']}.{uuid.uuid4().hex[:8]}"
        self.is_kit = of["kind"] == "kit"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CELERY_OPS_")},
            "BENCH_KIND": of["kind"],
            "BENCH_CONF": json.dumps(of.get("conf", {})),
            "BENCH_QUEUE": self.name,
            "CELERY_OPS_DEFAULT_QUEUE": self.name,
            "CELERY_OPS_TASK_TIME_LIMIT": "300",
            "PYTHONPATH": f"{HERE / 'runtime'}:{HERE}",
        }
        for name in ("count", "single"):
            if of.get(name):
                self.environment[f"BENCH_{name.upper()}"] = "1"
        self.counting = HERE / "run" / f"{self.name}.counting"
        if of.get("timed"):
            self.environment["BENCH_TIMED"] = str(self.counting)
        self.guarded = {
            "CELERY_OPS_PROGRAM": self.name,
            "CELERY_OPS_HEARTBEAT_FILE": str(HERE / "run" / f"{self.name}.heartbeat"),
            "CELERY_OPS_STATE_DIR": str(HERE / "state"),
        }

    def python(self, *words: str) -> dict[str, Any]:
        """Run this file's `words` with the side's settings in a process of its own; return what it printed last."""
        command = [sys.executable, __file__, *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words}, {self.of}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker."""
        guarded = self.is_kit or self.of.get("count")
        words = [sys.executable, "-m", "celery", "-A", "bench_app"]
        words += SAFE if self.is_kit else ["worker"]
        words += ["-n", f"{self.name}@bench", "-Q", self.name, "-c", str(self.of.get("slots", 2))]
        words += ["-P", self.of.get("pool", "prefork"), "-l", self.of.get("level", "INFO")]
        words += ["-I", "celery_ops.tasks"] if guarded else []
        with (HERE / "log" / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                words, env=self.environment | (self.guarded if guarded else {}), cwd=HERE, stdout=log, stderr=log
            )

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Stop a worker, and delete its queue."""
        worker.send_signal(signal.SIGTERM)
        worker.wait(WAIT)
        self.python("delete")


def wait_for(path: Path, worker: subprocess.Popen[bytes], more: float = 0.0) -> float:
    """Return the time that a task wrote into a file, within WAIT seconds and `more`."""
    deadline = time.monotonic() + WAIT + more
    while not path.exists():
        if time.monotonic() > deadline or worker.poll() is not None:
            log = HERE / "log" / f"{path.stem}.log"
            raise RuntimeError(
                f"{path.name}: no task came so far. The worker's log ends with:\n{log.read_text()[-3000:]}"
            )
        time.sleep(0.01)
    return float(path.read_text())


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that one process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int, which: str) -> int:
    """Return the bytes of memory of a process, now (VmRSS) or at most so far (VmHWM)."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{which}:")[2].split()[0]) * 1024


def processes(name: str = "", parent: int = 0) -> list[int]:
    """Return the processes of a name, or the children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            of, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if of == name or int(rest.split()[1]) == parent > 0:
                found.append(int(path.parent.name))
    return found


def of_all(main: int) -> dict[str, list[int]]:
    """Return a worker's main process, its pool, RabbitMQ and Redis."""
    return {
        "main": [main],
        "pool": processes(parent=main),
        "broker": processes("beam.smp"),
        "store": processes("redis-server"),
    }


def cpu(pids: list[int]) -> dict[int, float]:
    """Return the seconds of CPU of each; a command of RabbitMQ's, or Redis' child that saves, may have ended."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = cpu_of(pid)
    return found


def used(before: dict[int, float]) -> float:
    """Return the seconds of CPU that those have used since which are still there."""
    return sum(now - before[pid] for pid, now in cpu(list(before)).items())


def drain(of: dict[str, Any], number: int = 2000, payload: int = 0) -> dict[str, Any]:
    """Fill a queue, start a worker, return tasks a second between its first task and its last."""
    side = Side(of)
    first, last = (HERE / "run" / f"{side.name}.{which}" for which in ("first", "last"))
    side.python("fill", str(number), str(payload), str(first), str(last))
    broker = memory_of(min(processes("beam.smp")), "VmRSS")  # later ones are commands
    worker = side.start()
    try:
        begun = wait_for(first, worker)
        before = {name: cpu(pids) for name, pids in of_all(worker.pid).items()}
        ended = wait_for(last, worker, number / 100)
        us = {f"us_{name}": used(those) / number * 1e6 for name, those in before.items()}
        memory = memory_of(worker.pid, "VmHWM")
    finally:
        side.stop(worker)
    counting = {"us_counting": float(side.counting.read_text()) / number * 1e6} if side.of.get("timed") else {}
    return {
        **counting,
        "rate": number / (ended - begun),
        "us": sum(us.values()),
        **us,
        "memory": memory,
        "broker_memory": broker,
    }


def publish(of: dict[str, Any], how: str, number: int = 3000, payload: int = 0) -> dict[str, Any]:
    """Return messages a second of one publisher: `how` is "each" or "many"."""
    side = Side(of)
    answer = side.python("publish", how, str(number), str(payload))
    side.python("delete")
    return answer


def trip(of: dict[str, Any], number: int = 200) -> dict[str, Any]:
    """Return the time of a small task's round trip: {"p50": seconds, "p99": seconds}."""
    side = Side(of)
    worker = side.start()
    try:
        return side.python("trip", str(number))
    finally:
        side.stop(worker)


def mixed(of: dict[str, Any], seconds: float = 12.0, rate: float = 20.0) -> dict[str, Any]:
    """Send tasks of 10 ms, of 1 s (one in fifty) and with an ETA of 2 s (one in ten) at a steady rate.

    Returns how long those of 10 ms waited, and those with an ETA beyond it: {"p50", "p99", "eta_p99": seconds}.
    """
    side = Side(of)
    worker = side.start()
    try:
        return side.python("mixed", str(seconds), str(rate))
    finally:
        side.stop(worker)


# What runs with the settings of a side


def in_side(words: list[str]) -> dict[str, Any]:
    """Do one of the above's halves in this process."""
    from bench_app import app, mark, noop, sleep

    verb, *arguments = words
    if verb == "delete":
        with app.connection_for_write() as connection, connection.channel() as channel:
            channel.queue_delete(app.conf.task_default_queue)
            if os.environ["BENCH_KIND"] == "kit":
                channel.exchange_delete(app.conf.task_default_queue)
        return {}
    if verb == "fill":
        number, payload = int(arguments[0]), "x" * int(arguments[1])
        mark.delay(arguments[2])
        if os.environ["BENCH_KIND"] == "kit":
            import celery_ops

            celery_ops.publish_many(noop.s(payload) for _ in range(number))
        else:
            for _ in range(number):
                noop.delay(payload)
        mark.delay(arguments[3])
        return {}
    if verb == "publish":
        how, number, payload = arguments[0], int(arguments[1]), "x" * int(arguments[2])
        noop.delay(payload)  # connects and declares
        began, cpu = time.perf_counter(), time.process_time()
        if how == "each":
            for _ in range(number):
                noop.delay(payload)
        else:
            import celery_ops

            celery_ops.publish_many(noop.s(payload) for _ in range(number))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"rate": number / seconds, "cpu_us": cpu / number * 1e6}
    if verb == "trip":
        noop.delay().get(timeout=WAIT)
        times = []
        for _ in range(int(arguments[0])):
            began = time.perf_counter()
            noop.delay().get(timeout=WAIT)
            times.append(time.perf_counter() - began)
        return quantiles(times)
    if verb == "mixed":
        return send_mixed(float(arguments[0]), float(arguments[1]), noop, sleep)
    raise ValueError(verb)


def send_mixed(seconds: float, rate: float, noop: Any, sleep: Any) -> dict[str, Any]:
    """Send the mixed load; see `mixed`."""
    noop.delay().get(timeout=WAIT)
    short, late = [], []
    began = time.time()
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, began + number / rate - time.time()))
        if number % 50 == 25:
            sleep.delay(1.0, time.time())
        elif number % 10 == 5:
            late.append(sleep.apply_async((0.01, time.time() + 2), countdown=2))
        else:
            short.append(sleep.delay(0.01, time.time()))
    waits = [result.get(timeout=WAIT) for result in short]
    return {**quantiles(waits), "eta_p99": quantiles([result.get(timeout=WAIT) for result in late])["p99"]}


def quantiles(times: list[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    return {"p50": statistics.median(times), "p99": sorted(times)[int(len(times) * 0.99)]}


VERBS = {"drain": drain, "publish": publish, "trip": trip, "mixed": mixed}


def main() -> None:
    """Entry point."""
    if sys.argv[1:]:
        print(json.dumps(in_side(sys.argv[1:])))
        return
    for name in ("run", "log", "state"):
        (HERE / name).mkdir(exist_ok=True)
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        print(json.dumps(VERBS[verb](**arguments)), flush=True)


if __name__ == "__main__":
    main()
