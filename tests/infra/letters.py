"""An application whose tasks come to grief, and what makes them do so. test_dead_letters.py runs it on the host.

celery -A letters worker -Q letters     does what can be done
python letters.py kinds|expiring|...    sends, looks, replays
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from celery import Celery
from celery_ops import dead_letters
from kombu import Connection, Producer

QUEUE = "letters"
NOTES = Path(__file__).with_name("letters.notes")

app = Celery("letters")
app.config_from_object("celery_ops.settings")
app.conf.update(task_default_queue=QUEUE, task_default_exchange=QUEUE, task_default_routing_key=QUEUE)


@app.task(name="letters.note")
def note(number: int) -> None:
    """Note in a file that this one ran."""
    with NOTES.open("a") as file:
        file.write(f"{number}\n")


@app.task(name="letters.poison")
def poison() -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("LETTERS_RELEASE") == "2":

    @app.task(name="letters.later")
    def later(number: int) -> None:
        """Do the same under a name that the first release does not know."""
        note(number)


def send_kinds() -> None:
    """Send one of each kind that ends in the dead queue of its own accord."""
    app.send_task("letters.later", [1000], task_id="letters-unknown")
    app.send_task("letters.never", task_id="letters-never")
    app.send_task("letters.poison", task_id="letters-poison")
    app.send_task("letters.note", [1001], serializer="pickle", task_id="letters-pickle")
    with app.connection_for_write() as connection:
        raw = Producer(connection.channel())
        where = {"exchange": "", "routing_key": QUEUE, "content_encoding": "utf-8"}
        headers = {"task": "letters.note", "id": "letters-damaged"}
        raw.publish(b"{damaged", headers=headers, content_type="application/json", **where)
        raw.publish(
            b"cos\nsystem\n",
            correlation_id="letters-old-pickle",
            content_type="application/x-python-serialize",
            **where,
        )


def send_expiring(count: int) -> None:
    """Send notes that expire in a second, and a tick that does."""
    for number in range(count):
        app.send_task("letters.note", [number], expires=1, task_id=f"letters-note-{number}")
    app.send_task("celery_ops.tick", expires=1)


def look(dead_queue: str, times: int) -> None:
    """List the letters so many times."""
    for _ in range(times):
        dead_letters.main(["list", "--queue", dead_queue])


def waiting(connection: Connection, queue: str) -> int:
    """Messages in a queue that nobody holds."""
    return connection.default_channel.queue_declare(queue, passive=True).message_count


def replay_and_kill(dead_queue: str, step: int) -> None:
    """Start a replay, kill it once it has put `step` more letters into the queue; print both queues' lengths."""
    words = ("celery-ops-dead-letters", "replay", "--queue", dead_queue, "--task", "letters.note")
    with app.connection_for_write() as connection:
        aim = waiting(connection, QUEUE) + step
        replay = subprocess.Popen([Path(sys.executable).with_name(words[0]), *words[1:]], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while waiting(connection, QUEUE) < aim and replay.poll() is None and time.monotonic() < deadline:
            pass
        replay.kill()
        killed = replay.wait() == -signal.SIGKILL
        print(json.dumps({"killed": killed, "replayed": waiting(connection, QUEUE)}))


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
        case ["replay-and-kill", queue, step]:
            replay_and_kill(queue, int(step))
        case other:
            sys.exit(f"no such action: {other}")
