"""The kit's own tasks, for routers that know the application's alone: such a router may raise an exception for others.

`task_routes` may be a function that looks a task up in a table. Celery asks it for every task that is sent, also where
the sender names the queue: ticks and checks would never arrive.
"""

from typing import Any

from celery.app.routes import Router
from celery.utils.log import get_task_logger

OWN = "celery_ops."
"""What the names of the kit's tasks begin with."""
_route = Router.route


def connect() -> None:
    """Make this process send the kit's tasks whatever a router says to them."""
    Router.route = route


def route(self: Router, options: dict[str, Any], name: str, *arguments: Any, **others: Any) -> dict[str, Any]:
    """Return where a task goes; one of the kit's as if there were no routers, where a router raises an exception."""
    try:
        return _route(self, options, name, *arguments, **others)
    except Exception as error:
        if not name.startswith(OWN):
            raise
        get_task_logger(__name__).debug("No route for %s: %s", name, type(error).__name__)
        without = Router(queues=self.queues, create_missing=self.create_missing, app=self.app)
        return _route(without, options, name, *arguments, **others)
