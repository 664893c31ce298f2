"""Asks a broker, over AMQP, how many messages and consumers some queues have: all that an application may see of it."""

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops.layout import DELAY_LEVELS
from celery_ops.probe import Deadline, answer, connected, load_app

if TYPE_CHECKING:
    from celery import Celery


def own_queues(app: "Celery") -> list[str]:
    """Return the queues that an application names, and those in which its tasks wait for their ETA."""
    from celery_ops.cli.inspect import consumed, routed

    named = {*consumed(app), *routed(app)}
    return [*sorted(named), *(f"celery_delayed_{level}" for level in range(DELAY_LEVELS))]


def main(argv: list[str] | None = None) -> NoReturn:
    """Print queues, their messages and consumers as a line of JSON."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-queues", description="Count the messages and consumers of queues; print one line of JSON."
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument(
        "--own", action="store_true", help="those that the application names, and Celery's delay queues"
    )
    parser.add_argument("queues", nargs="*")
    options = parser.parse_args(argv)

    def probe(clock: Deadline, found: dict[str, Any]) -> None:
        from amqp.exceptions import NotFound

        app = load_app(options.app)
        names = [*options.queues, *(own_queues(app) if options.own else [])]
        with connected(app, clock, found) as connection:
            for name in dict.fromkeys(names):
                channel = connection.channel()  # the broker closes it where there is no such queue
                try:
                    known = channel.queue_declare(name, passive=True)
                    counts = {"messages": known.message_count, "consumers": known.consumer_count}
                    found["queues"][name] = counts
                    channel.close()
                except NotFound:
                    found["queues"][name] = None

    answer("asked", options.timeout, {"queues": {}}, probe)


if __name__ == "__main__":
    main()
