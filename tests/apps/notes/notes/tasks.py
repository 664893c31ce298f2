"""The work."""

from celery import shared_task
from flask import current_app


@shared_task
def shout(text: str) -> str:
    """Make it loud."""
    return f"{text.upper()} ({current_app.name})"
