"""A router that knows the application's tasks alone does not keep the kit's from being sent."""

import celery_ops.tasks  # noqa: F401 - connects it
import pytest
from celery import Celery

KNOWN = {"demo.mail": {"queue": "mail"}}


def by_table(name, args, kwargs, options, task=None, **_):
    return KNOWN[name]


@pytest.mark.parametrize("options", [{}, {"queue": "ticks"}])
def test_the_kits_tasks_go_where_they_are_sent_and_others_where_the_router_says(options):
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.task_routes = by_table
    route = app.amqp.router.route
    assert route({**options}, "celery_ops.tick")["queue"].name == options.get("queue", "celery")
    assert route({}, "demo.mail")["queue"].name == "mail"
    with pytest.raises(KeyError):
        route({}, "demo.unknown")


def test_a_route_that_is_given_holds_for_the_kits_tasks_too():
    app = Celery("demo", broker="memory://", set_as_current=False)
    app.conf.task_routes = {"*": {"queue": "jobs"}}
    assert app.amqp.router.route({}, "celery_ops.tick")["queue"].name == "jobs"
