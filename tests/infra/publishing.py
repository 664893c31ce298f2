"""Publishes many tasks to queues of its own and says what became of them. test_publish.py runs it."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import celery_ops
from celery import Celery, signals
from celery.canvas import Signature
from celery_ops.publish import NotPublished
from kombu import Exchange, Queue

FULL = 100
app = Celery("publishing")
celery_ops.apply(app)
app.conf.update(
    task_default_queue="publishing",
    task_routes={
        "publishing.full": "publishing-full",
        "publishing.nowhere": {"exchange": "publishing-nowhere", "routing_key": "nowhere"},
    },
    task_queues=[
        Queue(
            "publishing",
            Exchange("publishing", type="topic"),
            "publishing",
            queue_arguments={"x-queue-type": "quorum"},
        ),
        # One more than its length is nacked, or two: the broker counts a little late.
        Queue(
            "publishing-full",
            Exchange("publishing", type="topic"),
            "publishing-full",
            queue_arguments={"x-max-length": FULL, "x-overflow": "reject-publish"},
        ),
    ],
)
seen: list[str] = []
signals.after_task_publish.connect(lambda headers, **_: seen.append(headers["id"]), weak=False)


@app.task(name="publishing.note")
def note(number: int, text: str = "") -> None:
    """Nothing runs this."""


@app.task(name="publishing.full")
def full(number: int) -> None:
    """Nor this, from a queue that takes no more than FULL."""


@app.task(name="publishing.nowhere")
def nowhere(number: int) -> None:
    """Nor this, which goes to an exchange without a queue."""


def all_of_them() -> dict[str, Any]:
    """Publish 3,000, some with an id of their own, some for later."""
    signatures = [note.s(number).set(task_id=f"own-{number}") for number in range(1000)]
    signatures += [note.s(number).set(countdown=20) for number in range(1000, 1010)]
    signatures += [note.s(number, text="x" * 2000) for number in range(1010, 3000)]
    ids = celery_ops.publish_many(signatures, unconfirmed=50)
    waiting = taken("publishing")
    return {
        "ids": len(set(ids)),
        "own": ids[:1000] == [f"own-{number}" for number in range(1000)],
        "seen": seen == ids,
        "waiting": [message["id"] for message in waiting] == ids[:1000] + ids[1010:],
        "content": [message["number"] for message in waiting] == [*range(1000), *range(1010, 3000)],
        "stamped": all("celery_ops_published" in message["headers"] for message in waiting),
        "limits": {str(message["headers"]["timelimit"]) for message in waiting}
        == {str([app.conf.task_time_limit, app.conf.task_soft_time_limit])},
    }


def refused() -> dict[str, Any]:
    """Publish what the broker takes, what it does not take, and what can't be written."""
    with app.connection_for_write() as connection:
        Exchange("publishing-nowhere", type="topic", channel=connection.default_channel).declare()
    signatures = []
    for number in range(3 * FULL):
        signatures += [note.s(number), full.s(number), nowhere.s(number), note.s({number})]  # json has no sets
    signatures = [signature.set(task_id=f"{at % 4}-{at}") for at, signature in enumerate(signatures)]
    try:
        celery_ops.publish_many(signatures)
    except NotPublished as error:
        in_queues = {message["id"] for queue in ("publishing", "publishing-full") for message in taken(queue)}
        by_kind = [
            {why.split(":")[0].split(" (")[0] for id_, why in error.refused.items() if id_.startswith(f"{kind}-")}
            for kind in range(4)
        ]
        return {
            "said": str(error),
            "exact": set(error.confirmed) == in_queues,
            "all": sorted([*error.confirmed, *error.refused]) == sorted(one.id for one in signatures),
            "refused": [sum(id_.startswith(f"{kind}-") for id_ in error.refused) for kind in range(4)],
            "why": [sorted(whys) for whys in by_kind],
            "rest": [len(error.unknown), len(list(error.unsent))],
        }
    return {}


def cut() -> dict[str, Any]:
    """Lose the connection in the midst, and publish again what may be missing."""
    count, at = 2000, 1200

    def signatures() -> Iterator[Signature]:
        for number in range(count):
            if number == at:
                print("CUT", flush=True)
                sys.stdin.readline()  # the test has closed the connection
            yield note.s(number).set(task_id=str(number))

    try:
        celery_ops.publish_many(signatures())
    except NotPublished as error:
        first = [message["id"] for message in taken("publishing")]
        confirmed, unknown, unsent = error.confirmed, list(error.unknown), list(error.unsent)
        again = celery_ops.publish_many([*error.unknown.values(), *unsent])
        return {
            "said": str(error),
            "each_once": sorted([*confirmed, *unknown, *(one.id for one in unsent)], key=int)
            == [str(number) for number in range(count)],
            "confirmed_are_there": set(confirmed) <= set(first),
            "others_are_unknown": set(first) <= {*confirmed, *unknown},
            "unknown": len(unknown),
            "again": {message["id"] for message in taken("publishing")} == set(again) == {*unknown, *map(str, again)},
        }
    return {}


def taken(queue: str) -> list[dict[str, Any]]:
    """Take all messages of a queue."""
    found = []
    with app.connection_for_read() as connection:
        simple = connection.SimpleQueue(app.amqp.queues[queue], no_ack=True)
        while True:
            try:
                message = simple.get(timeout=1.0)
            except simple.Empty:
                return found
            found.append({"id": message.headers["id"], "headers": message.headers, "number": message.decode()[0][0]})


def clear() -> None:
    """Delete what was made."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        for queue in ("publishing", "publishing-full"):
            channel.queue_delete(queue)
        for exchange in ("publishing", "publishing-nowhere"):
            channel.exchange_delete(exchange)


if __name__ == "__main__":
    print(json.dumps({"all": all_of_them, "refused": refused, "cut": cut, "clear": clear}[sys.argv[1]]()))
