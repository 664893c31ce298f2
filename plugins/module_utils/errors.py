"""The errors that an operator reads. Standard library only, for runtime and modules."""

from __future__ import annotations


class OperatorError(Exception):
    """Something the operator has to know or do; its text is the whole message."""


class PermanentError(OperatorError):
    """Trying again does not help until something is changed."""


class RetryLater(OperatorError):
    """The answer is no as yet; asking again may help."""
