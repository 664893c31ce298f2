"""The errors that an operator reads. Standard library only, for runtime and modules."""

from __future__ import annotations

TAKES_NOTHING = (
    "takes no messages: a memory or disk alarm, or a network partition? Type on its host: rabbitmqctl cluster_status"
)
"""What is wrong with a broker that is connected to and confirms nothing."""


class OperatorError(Exception):
    """Something the operator has to know or do; its text is the whole message."""


class PermanentError(OperatorError):
    """Trying again does not help until something is changed."""


class RetryLater(OperatorError):
    """The answer is no as yet; asking again may help."""
