"""Tables for the terminal and for Markdown, in one style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.table import Table

from masksweep.sweeps.common.escape import markdown


class Column(NamedTuple):
    """The header and the layout of a column."""

    header: str
    right: bool = False
    """Whether the cells are aligned to the right, as numbers are."""
    wrap: bool = False
    """Whether long cells may be broken into several lines."""
    min_width: int | None = None
    """In characters."""


def terminal(
    columns: Sequence[Column],
    rows: Iterable[Sequence[RenderableType]],
    caption: str = "",
    gap: int = 2,
) -> Table:
    """Returns a table for the terminal.

    Args:
        columns: The columns, from left to right.
        rows: The cells of each row, as texts or `rich` renderables.
        caption: Text below the table.
        gap: Number of spaces between two columns.

    Returns:
        The table, for the `print` method of a `rich` console.
    """
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.caption, table.caption_justify = caption or None, "left"
    for column in columns:
        table.add_column(
            column.header,
            justify="right" if column.right else "left",
            vertical="bottom",
            no_wrap=not column.wrap,
            overflow="fold",
            min_width=column.min_width,
        )
    for row in rows:
        table.add_row(*row)
    return table


def as_markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table. The texts of the cells are escaped."""
    lines = [
        " | ".join(map(markdown, headers)),
        " | ".join("---" for _ in headers),
        *(" | ".join(map(markdown, row)) for row in rows),
    ]
    return "".join(f"| {line} |\n" for line in lines)
