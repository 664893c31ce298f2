"""Plain Celery, one module: no Django, no scheduler, no web; several worker programs."""

import socket

from celery import Celery

app = Celery("shop")
app.config_from_object("celery_ops.settings")


@app.task(name="shop.add")
def add(left: int, right: int) -> dict[str, object]:
    """Add, and say where."""
    return {"sum": left + right, "host": socket.gethostname()}
