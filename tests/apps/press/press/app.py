"""Celery."""

from celery import Celery

from press.config import Production

app = Celery("press", include=["press.tasks"])
app.config_from_object(Production)
