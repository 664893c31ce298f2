"""The pages."""

from fastapi import FastAPI

from prices.tasks import quote

app = FastAPI()


@app.get("/quote/{cents}")
def page(cents: int) -> dict[str, str]:
    """What the worker makes of it."""
    return {"price": quote.delay(cents).get(timeout=10)}
