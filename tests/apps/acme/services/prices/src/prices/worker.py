"""Celery with tasks in a module of their own."""

from celery import Celery

app = Celery("prices", include=["prices.tasks"])
app.conf.task_default_queue = "prices"
app.conf.task_routes = {"prices.tasks.quote": {"queue": "prices.fast"}}
