"""Asks a broker, over AMQP, how many messages and consumers some queues have: all that an application may see of it."""

import argparse
from typing import Any, NoReturn

from celery_ops.probe import Deadline, answer, connected, load_app


def main(argv: list[str] | None = None) -> NoReturn:
    """Print queues, their messages and consumers as a line of JSON."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-queues", description="Count the messages and consumers of queues; print one line of JSON."
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("queues", nargs="*")
    options = parser.parse_args(argv)

    def probe(clock: Deadline, found: dict[str, Any]) -> None:
        from amqp.exceptions import NotFound

        with connected(load_app(options.app), clock, found) as connection:
            for name in options.queues:
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
