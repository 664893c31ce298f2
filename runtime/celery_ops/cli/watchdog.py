"""``celery-ops-watchdog``: runs the watchdog until told to stop."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from celery_ops.layout import CONF_D, TIME_LIMIT, stop_timeout
from celery_ops.watchdog.metrics import Metrics
from celery_ops.watchdog.watchdog import Watchdog, WatchdogHeartbeat
from celery_ops.worker.heartbeat import READY

INTERVAL = 2.0
"""Seconds between two rounds."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the watchdog until told to stop."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-watchdog", description="Assess the programs of an application; restart what a restart helps."
    )
    parser.add_argument("-A", "--module", required=True, help="the application, as for celery -A")
    parser.add_argument(
        "--drain-timeout", type=float, default=stop_timeout(TIME_LIMIT), metavar="SECONDS",
        help="time to drain (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--conf-dir", type=Path, default=CONF_D, metavar="DIR")
    options = parser.parse_args(argv)
    path, app = os.environ.get("CELERY_OPS_HEARTBEAT_FILE"), os.environ.get("CELERY_OPS_APP")
    if not path or not app:
        sys.exit("celery-ops-watchdog: it was not started by celery-ops-guard; type: supervisorctl status")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    watchdog = Watchdog(
        app, options.module, os.getppid(), Path(path).parent, options.conf_dir, options.drain_timeout, start_timeout()
    )
    heartbeat, metrics = WatchdogHeartbeat(path, watchdog), Metrics(watchdog)
    heartbeat.enter(READY)
    watchdog.say(f"the watchdog of {app} starts")
    while not told_to_stop(stop):
        watchdog.run_once()
        metrics.step()
        watchdog.teller.step(time.monotonic())
        heartbeat.write(due=INTERVAL)
    watchdog.teller.step(time.monotonic(), last=True)
    sys.exit(0)


def told_to_stop(stop: set[signal.Signals]) -> bool:
    """Wait for the next round; return whether one of these signals came.

    After a process was stopped and goes on (SIGCONT), Python answers with a signal that never was.
    """
    found = signal.sigtimedwait(stop, INTERVAL)
    return found is not None and found.si_signo in stop


def start_timeout() -> float:
    """Return the seconds that a worker may take to start, as the application's environment says; 0 for nothing."""
    seconds = os.environ.get("CELERY_OPS_START_TIMEOUT", "")
    return float(seconds) if seconds.isdigit() else 0.0


if __name__ == "__main__":
    main()
