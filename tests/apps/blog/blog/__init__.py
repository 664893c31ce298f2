"""A blog that counts the words of its posts in the background."""

from blog.celery import app as celery_app

__all__ = ("celery_app",)
