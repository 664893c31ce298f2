"""The services that applications share on a host: RabbitMQ, Redis and Supervisor, and who uses them."""


def counted(number: int, thing: str) -> str:
    """Return a number with its noun."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
