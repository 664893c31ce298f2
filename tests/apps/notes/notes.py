"""Flask with Celery as it comes, without the kit's settings: its own queue name, its own defaults."""

from celery import Celery
from flask import Flask

app = Celery("notes")
app.conf.task_default_queue = "notes"
web = Flask("notes")


@app.task(name="notes.shout")
def shout(text: str) -> str:
    """Make it loud."""
    return text.upper()


@web.get("/shout/<text>")
def page(text: str) -> str:
    """What the worker makes of it."""
    return shout.delay(text).get(timeout=10)
