"""Formats times, counts and texts from elsewhere for a line of the terminal."""

from __future__ import annotations

from math import ceil


def format_duration(seconds: float) -> str:
    """Returns a time in seconds, minutes or hours, for example `90 s` or `12 min`."""
    if seconds < 100:
        return f"{ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def pluralize(number: int, thing: str) -> str:
    """Returns a number with its noun, for example `1 trial` or `2 trials`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def printable(text: str) -> str:
    """Returns the text with a space for each character that could move the cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
