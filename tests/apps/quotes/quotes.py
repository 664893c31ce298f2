"""FastAPI and Celery in one module."""

import os

from celery import Celery
from fastapi import FastAPI

celery = Celery("quotes", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_RESULT_BACKEND"))
celery.conf.update(task_queue_max_priority=10, task_default_priority=5, task_acks_late=True)
api = FastAPI()


@celery.task
def reverse(text: str) -> str:
    """The other way round."""
    return text[::-1]


@api.get("/")
def index() -> dict[str, bool]:
    """Alive."""
    return {"ok": True}


@api.get("/reverse/{text}")
def page(text: str) -> dict[str, str]:
    """What the worker makes of it."""
    return {"text": reverse.apply_async((text,), priority=9).get(timeout=10)}
