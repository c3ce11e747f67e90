"""Escapes texts of configs for Markdown, spreadsheets and terminals, so that they are only text.

HTML is escaped with `html.escape` where it is written.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console

MARKDOWN = re.compile(r"([\\`*{}\[\]<#!|~]|(?<![^\W_])_|_(?![^\W_]))")
"""Characters with a meaning in Markdown. An underscore within a word has none."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet takes for a formula."""


def markdown(text: str) -> str:
    """Returns the text on one line, escaped so that Markdown shows it as it is."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def cell(value: Any) -> Any:
    """Returns a cell of a CSV file. A text that looks like a formula gets a `'` before it.

    Numbers and a text of one character stay as they are. A carriage return would end the row, so it
    becomes a space.
    """
    if not isinstance(value, str):
        return value
    formula = len(value) > 1 and value.startswith(FORMULA)
    return ("'" * formula + value).replace("\r", " ")


def console(**options: Any) -> Console:
    """Returns a `rich` console that shows texts as they are, without markup or emoji names.

    Args:
        **options: For `rich.console.Console`.
    """
    return Console(markup=False, emoji=False, **options)
