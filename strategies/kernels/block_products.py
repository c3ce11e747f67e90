"""The products of `products` for a kernel that consists of whole blocks, compiled by Numba.

The samples of one unit are beside each other in memory, as there. A block is a small dense kernel:
its rows of the source are read once for `UNROLLED` rows of the result, which stay in registers
until all blocks of these rows are added.
"""

from __future__ import annotations

from typing import Any

from numba import int64
from numpy import empty

from masksweep.strategies.kernels.compiler import INDICES, ROW, compiled, numbers
from masksweep.strategies.kernels.vectors import load, multiply_add, store, zeros
from masksweep.strategies.plan import Array

SUM_TILES = (64, 16)
"""Numbers of samples in a tile of `sum_blocks`, which keeps `UNROLLED` rows in registers."""
WIDTHS = (32, 16, 4, 1)
"""Numbers of neighbouring entries of a block that `multiply_blocks` computes at once."""
UNROLLED = 4


def _sum_blocks(lanes: int) -> Any:
    @compiled(*[INDICES] * 4, numbers(1), numbers(2), numbers(2, result=True), ROW, ROW)
    def sum_blocks(
        starts: Array,
        rows: Array,
        positions: Array,
        sizes: Array,
        values: Array,
        source: Array,
        result: Array,
        begin: int,
        end: int,
    ) -> None:
        """Sets rows of `result` to weighted sums of rows of `source`.

        Args:
            starts: Where the blocks of each row of blocks of the result start, `[results + 1]`.
            rows: The row of blocks of `source` of each block, `[blocks]`.
            positions: The position in `values` of each block, `[blocks]`.
            sizes: Of a block: rows of the result, rows of the source, and the distance in `values`
                of its next row of the result, and of the source.
            values: The weights, `[kept]`.
            source: `[sources, batch]`; the batch is a multiple of the tile.
            result: `[results, batch]`; it need not be set to zero before.
            begin: The first row of blocks of the result that is computed.
            end: The row of blocks after the last one.
        """
        height, width, down, right = int64(sizes[0]), int64(sizes[1]), int64(sizes[2]), sizes[3]
        batch, numbers, results = source.shape[1], source.reshape(-1), result.reshape(-1)
        for tile in range(0, batch, lanes):
            for block_row in range(begin, end):
                row = 0
                while row + UNROLLED <= height:
                    a = b = c = d = zeros(numbers, lanes)
                    for k in range(starts[block_row], starts[block_row + 1]):
                        at = positions[k] * height * width + row * down
                        begins = rows[k] * width * batch + tile
                        for _ in range(width):
                            vector = load(numbers, begins, lanes)
                            a = multiply_add(a, values[at], vector)
                            b = multiply_add(b, values[at + down], vector)
                            c = multiply_add(c, values[at + 2 * down], vector)
                            d = multiply_add(d, values[at + 3 * down], vector)
                            begins += batch
                            at += right
                    stored = (block_row * height + row) * batch + tile
                    store(results, stored, a)
                    store(results, stored + batch, b)
                    store(results, stored + 2 * batch, c)
                    store(results, stored + 3 * batch, d)
                    row += UNROLLED
                while row < height:
                    a = zeros(numbers, lanes)
                    for k in range(starts[block_row], starts[block_row + 1]):
                        at = positions[k] * height * width + row * down
                        begins = rows[k] * width * batch + tile
                        for _ in range(width):
                            a = multiply_add(a, values[at], load(numbers, begins, lanes))
                            begins += batch
                            at += right
                    store(results, (block_row * height + row) * batch + tile, a)
                    row += 1

    return sum_blocks


def _multiply_blocks(lanes: int) -> Any:
    @compiled(INDICES, INDICES, INDICES, numbers(2), numbers(2), numbers(1, result=True), ROW, ROW)
    def multiply_blocks(
        starts: Array,
        rows: Array,
        sizes: Array,
        left: Array,
        right: Array,
        result: Array,
        begin: int,
        end: int,
    ) -> None:
        """Sets the entries of blocks to dot products of a row of `left` with a row of `right`.

        A row of `right` in a block is copied beside the others of its sample, so that the sums of
        neighbouring entries of the block are the lanes of a vector.

        Args:
            starts: Where the blocks of each row of blocks of `right` start, `[rights + 1]`.
            rows: The row of blocks of `left` of each block, `[blocks]`.
            sizes: Of a block: rows of `right`, a multiple of `lanes`, and rows of `left`.
            left: `[lefts, batch]`.
            right: `[rights, batch]`.
            result: `[kept]`, where a block has the entries of one row of `left` beside each other.
            begin: The first row of blocks of `right` whose entries are computed.
            end: The row of blocks after the last one.
        """
        width, height = int64(sizes[0]), int64(sizes[1])
        batch, lefts = left.shape[1], left.reshape(-1)
        panel = empty(batch * width, left.dtype)
        for block_row in range(begin, end):
            for column in range(width):
                for sample in range(batch):
                    panel[sample * width + column] = right[block_row * width + column, sample]
            for k in range(starts[block_row], starts[block_row + 1]):
                for column in range(0, width, lanes):
                    row = 0
                    while row + UNROLLED <= height:
                        a = b = c = d = zeros(lefts, lanes)
                        first = (rows[k] * height + row) * batch
                        for sample in range(batch):
                            vector = load(panel, sample * width + column, lanes)
                            at = first + sample
                            a = multiply_add(a, lefts[at], vector)
                            b = multiply_add(b, lefts[at + batch], vector)
                            c = multiply_add(c, lefts[at + 2 * batch], vector)
                            d = multiply_add(d, lefts[at + 3 * batch], vector)
                        stored = (k * height + row) * width + column
                        store(result, stored, a)
                        store(result, stored + width, b)
                        store(result, stored + 2 * width, c)
                        store(result, stored + 3 * width, d)
                        row += UNROLLED
                    while row < height:
                        a = zeros(lefts, lanes)
                        first = (rows[k] * height + row) * batch
                        for sample in range(batch):
                            vector = load(panel, sample * width + column, lanes)
                            a = multiply_add(a, lefts[first + sample], vector)
                        store(result, (k * height + row) * width + column, a)
                        row += 1

    return multiply_blocks


SUM_BLOCKS = {lanes: _sum_blocks(lanes) for lanes in SUM_TILES}
"""The function `sum_blocks` for each number of samples in a tile."""
MULTIPLY_BLOCKS = {lanes: _multiply_blocks(lanes) for lanes in WIDTHS}
"""The function `multiply_blocks` for each number of neighbouring entries."""
