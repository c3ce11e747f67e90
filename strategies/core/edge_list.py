"""The edges of a graph, from pairs or from a `.csv` file that may come from anyone."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from masksweep.strategies.core.npz import file_size
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.plan import Array, Mask

MAX_CSV_BYTES = 2**26
"""Largest size of a file in bytes: some millions of edges."""
ROWS_AT_ONCE = 50_000
"""Number of lines whose cells are in memory at once."""
SHOWN = 40
"""Largest number of characters of a cell that a message shows."""


@dataclass(frozen=True)
class End:
    """One end of all edges: their sources or their targets."""

    kind: str
    """`source` or `target`, for messages."""
    setting: str
    """The setting that has the names: `inputs` or `units`."""
    names: Sequence[str] | None
    """The names of all inputs or units, in the order of the kernel's axis. None: the cells are
    indices from 0."""

    def parser(self) -> Callable[[Any], int]:
        """Returns the function cell -> index. It raises `ValueError` or `KeyError` if it cannot."""
        if self.names is None:
            return int
        return {name: index for index, name in enumerate(self.names)}.__getitem__

    def reason(self, cell: Any) -> str:
        """Returns why a cell has no index."""
        shown = f"{self.kind} {str(cell)[:SHOWN]!r} is"
        if self.names is None:
            return f"{shown} no index; if it is a name, give {self.setting}"
        return f"{shown} not among the {len(self.names)} names in {self.setting}"


Ends = tuple[End, End]
"""The sources and the targets."""
INDICES: Ends = (End("source", "inputs", None), End("target", "units", None))
"""Sources and targets that are indices."""
Cells = tuple[Sequence[Any], Sequence[Any]]
"""The sources and the targets of some edges, `[edges]` each."""


@dataclass(frozen=True)
class EdgeList:
    """The edges of a graph as indices."""

    ends: Ends
    indices: tuple[Array, Array]
    """Index of the input and of the unit of each edge, `[edges]` each."""
    fault: Callable[[int, str], Invalid]
    """(edge, reason) -> the error that names the place of the edge, counted from 0."""
    shape: tuple[int, ...] | None = None
    """The shape of the matrix that the edges are from; None: it is not known."""

    def mask(self, name: str, shape: tuple[int, ...]) -> Mask:
        """Returns a mask that keeps the edges, of this shape; see `entries`."""
        mask = np.zeros(shape, bool)
        mask[tuple(self.entries(name, shape).T)] = True
        return mask

    def entries(self, name: str, shape: tuple[int, ...]) -> Array:
        """Returns each edge once, by unit, and by input within a unit.

        Args:
            name: Name of the weight, for messages.
            shape: Its shape, `(inputs, units)`.

        Returns:
            `[kept, 2]`, int64: input and unit of each edge.

        Raises:
            Invalid: An index is out of the range, there are more or fewer names than inputs or
                units, or the edges are from a matrix of another shape.
        """
        if self.shape is not None and self.shape != tuple(shape):
            allowed = f"a matrix of the shape of {name}, {list(shape)}; it is {list(self.shape)}"
            raise self.fault(0, f"must be {allowed}")
        for end, indices, length in zip(self.ends, self.indices, shape, strict=True):
            if end.names is not None:
                allowed = f"as many as {name} has {end.setting}: {length}"
                require(len(end.names) == length, end.setting, f"{len(end.names)} names", allowed)
            outside = np.flatnonzero((indices < 0) | (indices >= length))
            if outside.size:
                edge = int(outside[0])
                has = f"{name} has {length} {end.setting}"
                raise self.fault(edge, f"{end.kind} {indices[edge]} is out of the range; {has}")
        inputs, units = self.indices
        unique = np.unique(units * shape[0] + inputs)
        return np.stack(np.divmod(unique, shape[0])[::-1], axis=1)


def edges_of_indices(indices: Array) -> EdgeList:
    """Returns the edges that are given as an array of indices.

    Args:
        indices: Input and unit of each edge, `[edges, 2]`, integers.

    Raises:
        Invalid: (key `edges`) There is no edge, or the array has another shape or dtype.
    """
    valid = indices.ndim == 2 and indices.shape[1] == 2 and indices.dtype.kind in "iu"
    allowed = "whole numbers [edges, 2], with one edge or more"
    found = f"{indices.dtype} {list(indices.shape)}"
    require(valid and len(indices) > 0, "edges", found, allowed)
    columns = indices.astype(np.int64).T
    fault = partial(_fault_at, "edges", found)
    return EdgeList(INDICES, (columns[0], columns[1]), fault)


def edges_of_entries(
    key: str, value: object, shape: tuple[int, ...], rows: Array, columns: Array, values: Array
) -> EdgeList:
    """Returns the edges of a sparse matrix: its entries that are not 0.

    Args:
        key: The setting that has the matrix, for messages.
        value: Its value, for messages.
        shape: The shape of the matrix, `(inputs, units)`.
        rows: The input of each entry, `[entries]`.
        columns: The unit of each entry, `[entries]`.
        values: Its value. If an entry is stored twice, the sum counts.
    """
    places, inverse = np.unique(columns.astype(np.int64) * shape[0] + rows, return_inverse=True)
    sums = np.bincount(inverse, weights=values.astype(np.float64), minlength=len(places))
    units, inputs = np.divmod(places[sums != 0], shape[0])
    allowed = partial(Invalid, key, value)
    return EdgeList(INDICES, (inputs, units), lambda edge, reason: allowed(reason), tuple(shape))


def _fault_at(key: str, value: object, edge: int, reason: str) -> Invalid:
    return Invalid(key, value, f"edge {edge}: {reason}")


def edges_of_pairs(pairs: Sequence[tuple[Any, Any]], ends: Ends) -> EdgeList:
    """Returns the edges that are given as pairs of source and target.

    Raises:
        Invalid: (key `pairs`) There is no edge, or a source or target is no index or no known name.
    """

    def fault(edge: int, reason: str) -> Invalid:
        return Invalid("pairs", f"{len(pairs)} edges", f"edge {edge}: {reason}")

    require(len(pairs) > 0, "pairs", [], "one edge or more")
    cells = [[pair[side] for pair in pairs] for side in (0, 1)]
    for side, end in enumerate(ends):
        if end.names is not None:
            cells[side] = [*map(str, cells[side])]
    return _edge_list([(cells[0], cells[1])], ends, fault)


def read_edges(path: str, columns: tuple[str, str], ends: Ends) -> EdgeList:
    """Reads a `.csv` file in UTF-8 with a header and a line for each edge.

    Args:
        path: Path of the file. Columns other than the two are ignored, and so are empty lines.
        columns: Names of the columns with the sources and the targets.
        ends: The names of the inputs and of the units.

    Raises:
        Invalid: (key `path`) There is no such file, it is too large or is no `.csv` file, a column
            is missing, there is no edge, or a cell is no index or no known name.
    """
    if file_size(path) > MAX_CSV_BYTES:
        raise Invalid("path", path, f"more than {MAX_CSV_BYTES} bytes; use a sparse matrix (.npz)")
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            parts = _cells(path, csv.reader(stream), columns)
            edges = _edge_list(parts, ends, partial(_fault_in_file, path))
    except Invalid:
        raise
    except (OSError, ValueError, csv.Error) as error:  # ValueError: it is not UTF-8
        raise Invalid("path", path, "not a readable .csv file in UTF-8") from error
    require(edges.indices[0].size > 0, "path", path, "a file with one edge or more")
    return edges


def _cells(path: str, reader: Any, columns: tuple[str, str]) -> Iterator[Cells]:
    """Yields the edges in parts. The cells of a line that is too short are empty."""
    header = [cell.strip() for cell in next(reader, [])]
    for column in columns:
        allowed = f"a file with one column {column}; it has {', '.join(header)[:100]}"
        require(header.count(column) == 1, "path", path, allowed)
    first, second = (header.index(column) for column in columns)
    cells = max(first, second) + 1
    while rows := [*islice(reader, ROWS_AT_ONCE)]:
        rows = [row if len(row) >= cells else row + [""] * cells for row in rows if row]
        yield [row[first].strip() for row in rows], [row[second].strip() for row in rows]


def _fault_in_file(path: str, edge: int, reason: str) -> Invalid:
    """Returns the error that names the line of an edge, for which the file is read again."""
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        for _ in islice((row for row in reader if row), edge + 2):  # the header comes first
            pass
        return Invalid("path", path, f"line {reader.line_num}: {reason}")


def _edge_list(
    parts: Iterable[Cells], ends: Ends, fault: Callable[[int, str], Invalid]
) -> EdgeList:
    parsers, indices = [end.parser() for end in ends], (array("q"), array("q"))
    for part in parts:
        edges = len(indices[0])
        for end, parse, cells, into in zip(ends, parsers, part, indices, strict=True):
            try:
                into.extend(map(parse, cells))
            except (ValueError, KeyError, OverflowError):
                place = len(into) - edges
                raise fault(edges + place, end.reason(cells[place])) from None
    arrays = [np.array(numbers, np.int64) for numbers in indices]
    return EdgeList(ends, (arrays[0], arrays[1]), fault)
