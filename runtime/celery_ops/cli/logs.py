"""``celery-ops-logs``: the last lines that an application's programs wrote here, merged by time; or new ones."""

import argparse
import sys
import time

from celery_ops.launch.env import application_name
from celery_ops.layout import CONF_D, Layout
from celery_ops.log_lines import Entry, Follower, Logs, Wanted, conf_files, mistake, releases_of, seconds

POLL = 0.5
"""Seconds between two looks at the files."""


def main(argv: list[str] | None = None) -> None:
    """Print the last entries, and with -f those that come."""
    options = _options(argv)
    layout = Layout(options.app)
    logs = Logs(options.app, layout.log, releases_of(conf_files(CONF_D, options.app)))
    if wrong := mistake(vars(options), logs):
        print(f"celery-ops-logs: --{wrong}", file=sys.stderr)
        sys.exit(2)
    wanted = Wanted(options.program, options.task, options.release, time.time() - options.since if options.since else 0)
    width = max(map(len, logs.known()), default=0)
    # Opened before the last lines are read: a line that comes in between is there twice, none is missing.
    follower = Follower(logs, wanted) if options.follow else None
    try:
        show(logs.last(options.lines, wanted), width)
        while follower:
            time.sleep(POLL)
            show(follower.new(), width)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.stderr.close()  # else Python complains of the pipe


def show(entries: list[Entry], width: int) -> None:
    """Print entries with the program's name before each line."""
    for entry in entries:
        for line in entry.text.split("\n"):
            print(f"{entry.program:{width}} | {line}")
    sys.stdout.flush()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="celery-ops-logs", description="Show what an application's programs wrote.")
    parser.add_argument("--app", default=application_name(""), help="the application; by default the environment's")
    parser.add_argument("-n", "--lines", type=int, default=100, help="the last this many entries (default: 100)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    parser.add_argument("--program", default="", help="only this program, such as worker-default or 'worker-*'")
    parser.add_argument("--task", default="", help="only entries with this task id")
    parser.add_argument("--release", default="", help="only the programs of this release")
    parser.add_argument("--since", type=seconds, default=0, metavar="TIME", help="only the last 30min, 2h, 1d ...")
    options = parser.parse_args(argv)
    if not options.app:
        parser.error("--app is missing")
    return options


if __name__ == "__main__":
    main()
