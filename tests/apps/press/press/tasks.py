"""The work."""

from press.app import app


@app.task(bind=True)
def render(self, text: str) -> str:
    """A page, and where it was made."""
    return f"<p>{text}</p> {self.request.delivery_info['routing_key']}"


@app.task
def mail(address: str) -> str:
    """Send nothing to somebody."""
    return f"to {address}"
