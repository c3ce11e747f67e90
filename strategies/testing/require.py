"""One assertion for all checks."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raise `AssertionError` with the message unless the condition holds.

    An `assert` would not do: Python leaves them out under `-O`.
    """
    if not condition:
        raise AssertionError(message)
