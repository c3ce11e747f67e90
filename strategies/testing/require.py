"""An assertion for all checks."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raises `AssertionError` with the message if the condition is False.

    An `assert` statement is not used, because Python ignores it with the option `-O`.
    """
    if not condition:
        raise AssertionError(message)
