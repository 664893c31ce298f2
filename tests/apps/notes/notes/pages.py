"""The page."""

from flask import Blueprint

from notes.tasks import shout

blueprint = Blueprint("pages", __name__)


@blueprint.get("/shout/<text>")
def page(text: str) -> str:
    """What the worker makes of it."""
    return shout.delay(text).get(timeout=10)
