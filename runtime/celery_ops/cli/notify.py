"""Sends the lines on standard input, a JSON list, to the targets in a file: what the watchdog did on this host."""

import json
import sys
from pathlib import Path
from typing import NoReturn

from celery_ops.notices import WATCHDOG, Notice, send_all


def main(argv: list[str] | None = None) -> NoReturn:
    """Send a notice; print a line for each target that did not take it, without what is secret of it."""
    [path] = sys.argv[1:] if argv is None else argv
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"notices: {path} can't be read ({type(error).__name__}). Type: ansible-playbook playbooks/deploy.yml")
    notice = Notice(WATCHDOG, told["app"], told["host"], stage=told["stage"], changes=json.load(sys.stdin))
    for problem in send_all(told["targets"], notice):
        print(problem, flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
