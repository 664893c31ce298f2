"""An application of numbered short tasks, and a long one among them. test_short_tasks.py runs it.

celery -A short_tasks worker -Q short-tasks   does them
python short_tasks.py fill A B | count | clear  sends the numbers from A to B, looks, deletes
"""

import os
import sys
import time
from pathlib import Path

import celery_ops
from celery import Celery

NOTES = Path(__file__).with_name("short_tasks.notes")
QUEUE = "short-tasks"
app = Celery("short_tasks")
celery_ops.apply(app)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True)


def write(number: int) -> None:
    """Add a line; a short one is written in one piece."""
    file = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    os.write(file, f"{number}\n".encode())
    os.close(file)


@app.task(name="short_tasks.note")
def note(number: int) -> None:
    """Note the number."""
    write(number)


@app.task(name="short_tasks.long")
def long(number: int, seconds: float) -> None:
    """Note the number, and hold a process for some seconds."""
    write(number)
    time.sleep(seconds)


@app.task(name="short_tasks.once", acks_late=False)
def once(number: int) -> None:
    """Note the number; it is acknowledged before it begins."""
    write(number)


def main(verb: str, *arguments: str) -> None:
    """Do what the command line says."""
    if verb == "fill":
        kinds = {10: long.s(10, 3.0), 11: once.s(11), 12: once.s(12)}
        celery_ops.publish_many(kinds.get(number) or note.s(number) for number in range(*map(int, arguments)))
        return
    with app.connection_for_write() as connection, connection.channel() as channel:
        if verb == "count":
            print(channel.queue_declare(QUEUE, passive=True).message_count)
        else:
            channel.queue_delete(QUEUE)
            channel.exchange_delete(QUEUE)


if __name__ == "__main__":
    main(*sys.argv[1:])
