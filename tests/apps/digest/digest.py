"""Plain Celery in one module, with nothing set: it sends to Celery's default queue."""

import hashlib

from celery import Celery, chord

app = Celery("digest")


@app.task
def digest(text: str) -> str:
    """A hash."""
    return hashlib.sha256(text.encode()).hexdigest()


@app.task
def count(digests: list[str]) -> int:
    """How many differ."""
    return len(set(digests))


@app.task
def count_all(texts: list[str]) -> str:
    """Hash each, count afterwards: the id of the result."""
    return chord(digest.s(text) for text in texts)(count.s()).id
