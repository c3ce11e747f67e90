"""The three products of a layer with a sparse kernel, compiled by Numba.

A training step needs three products with a kernel `W`, `[inputs, outputs]`:

- forward, `y = x @ W`;
- the gradient of the inputs, `dx = dy @ W^T`;
- the gradient of the values, `dW = x^T @ dy`, of which only the kept entries are wanted.

All arrays are transposed here: `x` is `[inputs, batch]` and `y` is `[outputs, batch]`, so that the
samples of one unit are beside each other in memory. One output of the forward product is then a sum
of a few rows of `x`, each times one value:

    for each output o:
        for each kept entry (i, o) with value w:
            y[o, :] += w * x[i, :]

The batch is divided into tiles of `lanes` samples, and `y[o, :]` of a tile stays in registers until
all entries of the output are added that are in one band of inputs (see `structure`). The gradient
of the inputs is the same loop over the entries by input. The gradient of a value is the dot product
of a row of `x` with a row of `dy`, which stays in registers for all entries of the output.

Each function computes the rows from `begin` to `end`, so that threads can share the work. No two
threads write to one row, and each row is computed in the same order by any number of threads, so
the number of threads changes no bit. The compiler may reorder the sum of a dot product
(`reassoc`), in the same way in every run; it may not assume that values are finite.
"""

from __future__ import annotations

from typing import Any

from numba import int64

from masksweep.strategies.kernels.compiler import INDICES, ROW, compiled, numbers
from masksweep.strategies.kernels.vectors import load, multiply_add, store, total, zeros
from masksweep.strategies.plan import Array

TILES = (128, 32)
"""Numbers of samples in a tile. A kernel is compiled for each."""


def _sum_rows(lanes: int) -> Any:
    @compiled(INDICES, INDICES, INDICES, numbers(1), numbers(2), numbers(2, result=True), ROW, ROW)
    def sum_rows(
        starts: Array,
        rows: Array,
        positions: Array,
        values: Array,
        source: Array,
        result: Array,
        begin: int,
        end: int,
    ) -> None:
        """Sets rows of `result` to weighted sums of rows of `source`.

        Args:
            starts: Where the entries of each row of the result start in each band of `source`,
                `[bands * results + 1]`.
            rows: The row of `source` of each entry, `[kept]`.
            positions: The position in `values` of each entry, `[kept]`; empty: they are in order.
            values: The weights, `[kept]`.
            source: `[sources, batch]`; the batch is a multiple of the tile.
            result: `[results, batch]`; it need not be set to zero before.
            begin: The first row of the result that is computed.
            end: The row after the last one.
        """
        ordered, batch, count = positions.size == 0, source.shape[1], result.shape[0]
        numbers, results = source.reshape(-1), result.reshape(-1)
        for tile in range(0, batch, lanes):
            for band in range(0, starts.size - 1, count):
                for row in range(begin, end):
                    at = row * batch + tile
                    added = load(results, at, lanes) if band else zeros(numbers, lanes)
                    for k in range(starts[band + row], starts[band + row + 1]):
                        value = values[k] if ordered else values[positions[k]]
                        other = load(numbers, int64(rows[k]) * batch + tile, lanes)
                        added = multiply_add(added, value, other)
                    store(results, at, added)

    return sum_rows


def _dot_rows(lanes: int) -> Any:
    @compiled(INDICES, INDICES, numbers(2), numbers(2), numbers(1, result=True), ROW, ROW)
    def dot_rows(
        starts: Array,
        rows: Array,
        left: Array,
        right: Array,
        result: Array,
        begin: int,
        end: int,
    ) -> None:
        """Sets entries of `result` to dot products of a row of `left` with a row of `right`.

        Args:
            starts: Where the entries of each row of `right` start in each band of `left`,
                `[bands * rights + 1]`.
            rows: The row of `left` of each entry, `[kept]`.
            left: `[lefts, batch]`; the batch is a multiple of the tile.
            right: `[rights, batch]`.
            result: `[kept]`; it need not be set to zero before.
            begin: The first row of `right` whose entries are computed.
            end: The row after the last one.
        """
        batch, count, lefts, rights = (
            left.shape[1],
            right.shape[0],
            left.reshape(-1),
            right.reshape(-1),
        )
        for band in range(0, starts.size - 1, count):
            result[starts[band + begin] : starts[band + end]] = 0
            for tile in range(0, batch, lanes):
                for row in range(begin, end):
                    factor = load(rights, row * batch + tile, lanes)
                    for k in range(starts[band + row], starts[band + row + 1]):
                        other = load(lefts, int64(rows[k]) * batch + tile, lanes)
                        result[k] += total(multiply_add(zeros(lefts, lanes), factor, other))

    return dot_rows


SUM_ROWS = {lanes: _sum_rows(lanes) for lanes in TILES}
"""The function `sum_rows` for each number of samples in a tile."""
DOT_ROWS = {lanes: _dot_rows(lanes) for lanes in TILES}
"""The function `dot_rows` for each number of samples in a tile."""
