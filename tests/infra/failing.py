"""An application whose tasks fail in every way that dead-letters them. test_dead_letters.py runs it on the host.

celery -A failing worker -Q failing     does what can be done
python failing.py kinds|expiring|...    sends, looks, replays
"""

import os
import signal
import sys
from pathlib import Path

from amqp import Channel
from celery import Celery
from celery_ops.cli import dead_letters
from kombu import Connection, Producer

QUEUE = "failing"
NOTES = Path(__file__).with_name("failing.notes")

app = Celery("failing")
app.config_from_object("celery_ops.settings")
app.conf.update(task_default_queue=QUEUE, task_default_exchange=QUEUE, task_default_routing_key=QUEUE)


@app.task(name="failing.note")
def note(number: int) -> None:
    """Note in a file that this one ran."""
    with NOTES.open("a") as file:
        file.write(f"{number}\n")


@app.task(name="failing.poison")
def poison() -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("FAILING_RELEASE") == "2":

    @app.task(name="failing.later")
    def later(number: int) -> None:
        """Do the same under a name that the first release does not know."""
        note(number)


def send_kinds() -> None:
    """Send one of each kind that ends in the dead queue of its own accord."""
    app.send_task("failing.later", [1000], task_id="failing-unknown")
    app.send_task("failing.never", task_id="failing-never")
    app.send_task("failing.poison", task_id="failing-poison")
    app.send_task("failing.note", [1001], serializer="pickle", task_id="failing-pickle")
    with app.connection_for_write() as connection:
        raw = Producer(connection.channel())
        where = {"exchange": "", "routing_key": QUEUE, "content_encoding": "utf-8"}
        headers = {"task": "failing.note", "id": "failing-damaged"}
        raw.publish(b"{damaged", headers=headers, content_type="application/json", **where)
        raw.publish(
            b"cos\nsystem\n",
            correlation_id="failing-old-pickle",
            content_type="application/x-python-serialize",
            **where,
        )


def send_expiring(count: int) -> None:
    """Send notes that expire in a second, and a tick that does."""
    for number in range(count):
        app.send_task("failing.note", [number], expires=1, task_id=f"failing-note-{number}")
    app.send_task("celery_ops.tick", expires=1)


def look(dead_queue: str, times: int) -> None:
    """List the messages that often."""
    for _ in range(times):
        dead_letters.main(["list", "--queue", dead_queue])


def waiting(connection: Connection, queue: str) -> int:
    """Messages in a queue that nobody holds."""
    return connection.default_channel.queue_declare(queue, passive=True).message_count


def replay_and_die(dead_queue: str, step: int) -> None:
    """Replay, and die at the worst moment: copy number `step` is confirmed, and its message not yet acknowledged."""
    acknowledge, steps = Channel.basic_ack, iter(range(1, step))

    def acknowledge_or_die(*arguments: object) -> object:
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return acknowledge(*arguments)

    Channel.basic_ack = acknowledge_or_die
    dead_letters.main(["replay", "--queue", dead_queue, "--task", "failing.note"])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["kinds"]:
            send_kinds()
        case ["expiring", count]:
            send_expiring(int(count))
        case ["count", queue]:
            with app.connection_for_write() as connection:
                print(waiting(connection, queue))
        case ["look", queue, times]:
            look(queue, int(times))
        case ["replay-and-die", queue, step]:
            replay_and_die(queue, int(step))
        case other:
            sys.exit(f"no such action: {other}")
