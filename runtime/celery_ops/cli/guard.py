"""``celery-ops-guard``: makes sure that a program runs once, then becomes it (`celery_ops.launch.guard`)."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from celery_ops.launch import env, guard
from celery_ops.launch.process import EX_CONFIG, ExitError, report
from celery_ops.layout import TIME_LIMIT, stop_timeout


def main(argv: list[str] | None = None) -> NoReturn:
    """Guard a program, then become it."""
    parent = os.getppid()
    options = _options(argv)

    def say(message: str) -> None:
        report(f"celery-ops-guard {options.program}", message)

    signal.pthread_sigmask(signal.SIG_BLOCK, guard.STOP)
    try:
        guard.run(options, parent, say)
    except guard.Stopped:
        say("told to stop while waiting")
        sys.exit(0)
    except (ExitError, env.EnvFileError) as error:
        say(str(error))
        sys.exit(getattr(error, "code", EX_CONFIG))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celery-ops-guard", description="Make sure that a program runs once, then become it."
    )
    parser.add_argument("--app", required=True, help="the application's name")
    parser.add_argument("--program", required=True, help="the program's name in Supervisor")
    parser.add_argument("--pidfile", required=True, type=Path, help="absolute; the lock is <pidfile>.lock")
    parser.add_argument("--user", help="run as this user (started as root)")
    parser.add_argument("--env-file", help="KEY=value lines for the program's environment")
    parser.add_argument("--chdir", metavar="DIR")
    parser.add_argument(
        "--drain-timeout",
        type=float,
        default=stop_timeout(TIME_LIMIT),
        metavar="SECONDS",
        help="how long an orphan may finish its work before it is killed (%(default)s)",
    )
    parser.add_argument(
        "--max-memory", type=int, default=0, metavar="BYTES", help="the watchdog recycles what takes more; 0: never"
    )
    parser.add_argument(
        "--no-stand-in", action="store_true", help="nothing works in its place while it is recycled: never two at once"
    )
    parser.add_argument(
        "--listen-from",
        type=Path,
        metavar="SOCKET",
        help="take the listening socket from celery-ops-listener",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --: program and arguments")
    options = parser.parse_args(argv)
    if not options.pidfile.is_absolute():
        parser.error(f"--pidfile {options.pidfile} must be an absolute path")
    return options


if __name__ == "__main__":
    main()
