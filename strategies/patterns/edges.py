"""The `edges` pattern: the connections of a graph, such as a network of genes and pathways."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.core.edge_list import (
    EdgeList,
    End,
    edges_of_entries,
    edges_of_indices,
    edges_of_pairs,
    read_edges,
)
from masksweep.strategies.core.sparse_file import read_entries
from masksweep.strategies.errors import require
from masksweep.strategies.patterns.base import Pattern, Shapes
from masksweep.strategies.plan import Mask
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Edges(Pattern):
    """Keeps the connections of a graph, given as its edges or its adjacency matrix.

    An edge leads from an input (a row of the kernel) to a unit (a column). All other entries are
    masked. An edge may be given twice. The seed is ignored.

    The graph is one of:

    - `path` of a `.csv` file in UTF-8, with a header and a line for each edge;
    - `path` of a `.npz` file with a sparse matrix in CSR, CSC or COO format, as
      `scipy.sparse.save_npz` writes it, of the kernel's shape; entries that are not 0 are edges;
    - `pairs` of source and target.

    Sources and targets are indices from 0. They are names if `inputs` or `units` has the names, in
    the order of the kernel's rows or columns.

    Raises:
        Invalid: There is no graph or more than one, the file cannot be read or has no such columns,
            an edge has an unknown name or an index out of the range, or a targeted weight is not
            `[inputs, units]`.

    Example:
        >>> edges = Edges(pairs=[("TP53", "apoptosis"), ("MYC", "growth"), ("TP53", "growth")],
        ...               inputs=["MYC", "TP53"], units=["apoptosis", "growth"])
        >>> edges.masks({"genes/kernel": (2, 2)}, seed=0)["genes/kernel"].astype(int)
        array([[0, 1],
               [1, 1]])

    Reference:
        Elmarakeby et al., Biologically informed deep neural network for prostate cancer discovery,
        Nature 598, 2021, whose layers are connected as genes and pathways are.
    """

    name: ClassVar[str] = "edges"
    path: str | None = None
    """Path of a `.csv` file with edges, or of a `.npz` file with a sparse matrix."""
    pairs: Any = None
    """The edges as pairs (source, target): a list, an array `[edges, 2]`, or a DataFrame of two
    columns."""
    source: str = "source"
    """Name of the column of the `.csv` file with the sources."""
    target: str = "target"
    """Name of the column of the `.csv` file with the targets."""
    inputs: Sequence[str] | None = None
    """Names of the inputs, in the order of the kernel's rows; None: sources are indices."""
    units: Sequence[str] | None = None
    """Names of the units, in the order of the kernel's columns; None: targets are indices."""

    def __post_init__(self) -> None:
        both = "path and pairs" if self.path is not None else None
        require((self.path is None) != (self.pairs is None), "path", both, "given, or else pairs")
        # tuples of plain values can be compared and hashed, and a config can have them
        for key in ("inputs", "units"):
            if (names := getattr(self, key)) is not None:
                object.__setattr__(self, key, _as_names(key, names))
        if self.pairs is not None:
            object.__setattr__(self, "pairs", _as_pairs(self.pairs))
        if self.path is not None:
            known = Path(self.path).suffix in (".csv", ".npz")
            require(known, "path", self.path, "a .csv file of edges, or a .npz file of a matrix")
        if self._is_matrix:
            for key in ("inputs", "units"):
                names = getattr(self, key)
                require(names is None, key, names, "null with a .npz file, which has indices")
            read_entries(str(self.path))
        else:
            self._edges()

    @property
    def _is_matrix(self) -> bool:
        return self.path is not None and Path(self.path).suffix == ".npz"

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        for name, shape in shapes.items():
            require(len(shape) == 2, name, list(shape), "a weight [inputs, units], to have edges")
        edges = self.edge_list()
        return {name: edges.mask(name, shape) for name, shape in shapes.items()}

    def edge_list(self) -> EdgeList:
        """Returns the edges of the graph."""
        if self._is_matrix:
            return edges_of_entries("path", self.path, *read_entries(str(self.path)))
        return self._edges()

    def _edges(self) -> EdgeList:
        ends = End("source", "inputs", self.inputs), End("target", "units", self.units)
        if self.path is None:
            return edges_of_pairs(self.pairs, ends)
        return read_edges(self.path, (self.source, self.target), ends)


def as_edge_list(edges: Any) -> EdgeList:
    """Returns the edges of a graph in any form that `SparseDense` takes.

    Args:
        edges: An `Edges`, a path, a SciPy sparse matrix, or pairs of indices.

    Raises:
        Invalid: They cannot be read.

    Example:
        >>> as_edge_list([(0, 1), (2, 1)]).entries("genes", (3, 2)).tolist()
        [[0, 1], [2, 1]]
    """
    if isinstance(edges, str | Path):
        edges = Edges(path=str(edges))
    if isinstance(edges, Edges):
        return edges.edge_list()
    if hasattr(edges, "tocoo"):
        matrix = edges.tocoo()
        found = f"a sparse matrix {list(matrix.shape)}"
        return edges_of_entries("edges", found, matrix.shape, matrix.row, matrix.col, matrix.data)
    array = np.asarray(edges)
    if array.ndim == 2 and array.dtype.kind in "iu":
        return edges_of_indices(array)
    return Edges(pairs=edges).edge_list()


def _as_names(key: str, names: Any) -> tuple[str, ...]:
    require(not isinstance(names, str), key, names, "a list of names")
    texts = tuple(str(name).strip() for name in names)
    twice = [name for name, count in Counter(texts).items() if count > 1]
    require(not twice, key, twice[:3], "names, each once")
    return texts


def _as_pairs(pairs: Any) -> tuple[tuple[int | str, int | str], ...]:
    """Returns pairs of plain whole numbers or names.

    Args:
        pairs: An iterable of pairs, or what NumPy can make an array `[edges, 2]` of, as a DataFrame
            of two columns.
    """
    try:
        rows = [*map(tuple, np.asarray(pairs).tolist() if hasattr(pairs, "__array__") else pairs)]
        cell_types = {*map(type, chain.from_iterable(rows))}
        if not cell_types <= {int, str}:
            rows = [tuple(map(_as_cell, row)) for row in rows]
        valid = all(len(row) == 2 for row in rows)
    except TypeError:  # not iterable, or a cell that is no name and no whole number
        valid = False
    allowed = "pairs (source, target) of whole numbers or names"
    require(valid, "pairs", type(pairs).__name__, allowed)
    return tuple(rows)


def _as_cell(value: Any) -> int | str:
    if isinstance(value, bool):
        raise TypeError
    return str(value) if isinstance(value, str) else int(operator.index(value))
