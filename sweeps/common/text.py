"""Times, counts and foreign text, as a line of a terminal shows them."""

from __future__ import annotations

from math import ceil


def about(seconds: float) -> str:
    """A time in one unit, to two or three digits."""
    if seconds < 100:
        return f"{ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def printable(text: str) -> str:
    """Without what would move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
