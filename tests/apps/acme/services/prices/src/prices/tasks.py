"""The work."""

from importlib.metadata import version

from acme_money import euros

from prices.worker import app


@app.task
def quote(cents: int) -> str:
    """An amount, and who says so."""
    return f"{euros(cents)} (prices {version('prices')})"
