"""What a config says, as it goes into Markdown, a spreadsheet or a terminal: to be read, no more.

HTML is escaped where it is made, by `html.escape`.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console

MARKDOWN = re.compile(r"([\\`*{}\[\]<#!|~]|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown takes for more than text. An underscore within a word is text."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet computes."""


def markdown(text: str) -> str:
    """A text on one line, of which Markdown makes no picture, link, tag or heading."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def cell(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would compute gets a `'` before it.

    Numbers stay as they are, and so does a lone `-`. A carriage return, which would end the row,
    becomes a space.
    """
    if not isinstance(value, str):
        return value
    formula = len(value) > 1 and value.startswith(FORMULA)
    return ("'" * formula + value).replace("\r", " ")


def console(**options: Any) -> Console:
    """A terminal that shows texts as they are: none is markup, or the name of an emoji."""
    return Console(markup=False, emoji=False, **options)
