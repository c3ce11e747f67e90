"""The error for a value that is not allowed. Its message is one line, meant for the user."""

from __future__ import annotations

from typing import Any


class Invalid(ValueError):
    """Raised for a value that is not allowed. Its message is `key=value: allowed`.

    Args:
        key: The setting or the weight that has the value.
        value: The value that is not allowed.
        allowed: What is allowed, or why the value is not.

    Example:
        >>> from masksweep import strategies
        >>> try:
        ...     strategies.Random(sparsity=1.5)
        ... except strategies.Invalid as error:
        ...     print(error, "-", error.key)
        sparsity=1.5: must be a number in [0, 1) - sparsity
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed)


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Checks a value.

    Args:
        condition: Whether the value is allowed.
        key: The setting or the weight that has the value.
        value: The value.
        allowed: What is allowed; the message is `key=value: must be allowed`.

    Raises:
        Invalid: The condition is False.

    Example:
        >>> require(2 >= 3, "rounds", 2, "3 or more")
        Traceback (most recent call last):
        masksweep.strategies.errors.Invalid: rounds=2: must be 3 or more
    """
    if not condition:
        raise Invalid(key, value, f"must be {allowed}")
