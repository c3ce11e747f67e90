"""Losses with settings, which are written as text: `huber(delta=2.0)`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from masksweep.strategies.errors import Invalid


def with_settings(name: str, settings: Mapping[str, Any]) -> str:
    """Returns the text for a loss with settings; the name alone if there are none.

    Args:
        name: Name of the loss.
        settings: Numbers and booleans by the names of the settings.

    Raises:
        Invalid: A setting is something else.

    Example:
        >>> with_settings("huber", {"delta": 2})
        'huber(delta=2)'
    """
    for key, value in settings.items():
        if type(value) not in (int, float, bool):
            raise Invalid(key, value, "must be a number, true or false")
    texts = ", ".join(f"{key}={value!r}" for key, value in sorted(settings.items()))
    return f"{name}({texts})" if texts else name


def split(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of a loss from its text.

    Raises:
        Invalid: The text is not as `with_settings` writes it.

    Example:
        >>> split("huber(delta=2)")
        ('huber', {'delta': 2})
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        settings = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
        assert len(settings) == len(call.keywords)
    except (AssertionError, SyntaxError, ValueError) as error:
        allowed = "must be a name, or with settings {name: huber, delta: 2}"
        raise Invalid("train.loss", text, allowed) from error
    return name, settings
