"""Project petct: a PET/CT viewer and a photo collector, kept running by Celery."""

from petct.celery import app as celery_app

__all__ = ["celery_app"]
