"""Settings in a class, with queues of its own, as they were declared years ago."""

from kombu import Exchange, Queue


class Production:
    """What `config_from_object` takes."""

    task_queues = (
        Queue("press:render", Exchange("press"), routing_key="render", queue_arguments={"x-max-priority": 5}),
        Queue("press.mail", Exchange("press"), routing_key="mail"),
    )
    task_default_queue = "press:render"
    task_default_exchange = "press"
    task_default_routing_key = "render"
    task_routes = {"press.tasks.mail": {"queue": "press.mail"}}
    task_serializer = "json"
    worker_prefetch_multiplier = 1
    beat_schedule = {"proof": {"task": "press.tasks.render", "schedule": 20.0, "args": ("proof",)}}
