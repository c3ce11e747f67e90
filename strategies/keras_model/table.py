"""Tables in plain text."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

MAX_WIDTH = 100
"""Width of a table from which on names are broken."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a plain table; names are aligned to the left, other columns to the right.

    If it would be wider than `MAX_WIDTH`, names in the first column are broken at slashes.
    """
    lines = _lines(header, rows)
    longest = max((len(name) for name, *_ in rows), default=0)
    width = longest + MAX_WIDTH - max(map(len, lines))
    if 0 < width < longest:
        lines = _lines(header, [[_broken(name, width), *row] for name, *row in rows])
    return "\n".join(lines)


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, title in enumerate(header):
        left = i == 0 or title == "strategy"
        grid.add_column(title, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    console.print(grid)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [line.rstrip() for line in lines]


def _broken(name: str, width: int) -> str:
    """Returns a name in lines of this width, which end at slashes if they can."""
    parts = textwrap.wrap(name.replace("/", "/ "), width, break_on_hyphens=False)
    return "\n".join(part.replace("/ ", "/") for part in parts)
