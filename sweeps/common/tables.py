"""Tables for the terminal and for Markdown; all of them look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.table import Table

from masksweep.sweeps.common.escape import markdown


class Column(NamedTuple):
    """How a column of a table is shown."""

    header: str
    right: bool = False
    """Whether its cells end at the same place, as figures do."""
    wrap: bool = False
    """Whether long cells may break into lines."""
    min_width: int | None = None
    """Characters."""


def terminal(
    columns: Sequence[Column],
    rows: Iterable[Sequence[RenderableType]],
    caption: str = "",
    gap: int = 2,
) -> Table:
    """A table for the terminal.

    Args:
        columns: What is above the cells, and how they are shown.
        rows: The cells of each row, texts or `rich`'s own.
        caption: What stands below it.
        gap: Blanks between two columns.

    Returns:
        The table, to be printed on a `rich` console.
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
    """A Markdown table whose cells are shown as they are."""
    lines = [
        " | ".join(map(markdown, headers)),
        " | ".join("---" for _ in headers),
        *(" | ".join(map(markdown, row)) for row in rows),
    ]
    return "".join(f"| {line} |\n" for line in lines)
