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

The inner loop goes over the samples, has no indices, and is compiled to vector instructions of any
width. Eight entries are taken at a time, so that a row of `y` is loaded and stored once for eight
products and not for each of them. The gradient of the inputs is the same loop over the entries by
input. The gradient of a value is the dot product of a row of `x` with a row of `dy`; four values
are computed at a time, so that a row of `dy` is loaded once for four products.

The batch is divided into tiles of `TILE` samples, so that the rows of a tile stay in the cache.

Each function computes the rows from `begin` to `end`, so that threads can share the work. No two
threads write to one row, and each row is computed in the same order by any number of threads, so
the number of threads changes no bit. The compiler may reorder the sum of a dot product
(`reassoc`), in the same way in every run; it may not assume that values are finite.
"""

from __future__ import annotations

from masksweep.strategies.base import Array
from masksweep.strategies.kernels.compiler import INDICES, ROW, compiled, numbers

TILE = 256


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
        starts: Where the entries of each row of the result start, `[results + 1]`.
        rows: The row of `source` of each entry, `[kept]`.
        positions: The position in `values` of each entry, `[kept]`; empty: they are in order.
        values: The weights, `[kept]`.
        source: `[sources, batch]`.
        result: `[results, batch]`; it need not be set to zero before.
        begin: The first row of the result that is computed.
        end: The row after the last one.
    """
    ordered = positions.size == 0
    for tile in range(0, source.shape[1], TILE):
        stop = min(tile + TILE, source.shape[1])
        for row in range(begin, end):
            total = result[row, tile:stop]
            total[:] = 0
            k, last = starts[row], starts[row + 1]
            while k + 8 <= last:
                if ordered:
                    v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
                    v4, v5, v6, v7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
                else:
                    v0, v1 = values[positions[k]], values[positions[k + 1]]
                    v2, v3 = values[positions[k + 2]], values[positions[k + 3]]
                    v4, v5 = values[positions[k + 4]], values[positions[k + 5]]
                    v6, v7 = values[positions[k + 6]], values[positions[k + 7]]
                s0, s1 = source[rows[k], tile:stop], source[rows[k + 1], tile:stop]
                s2, s3 = source[rows[k + 2], tile:stop], source[rows[k + 3], tile:stop]
                s4, s5 = source[rows[k + 4], tile:stop], source[rows[k + 5], tile:stop]
                s6, s7 = source[rows[k + 6], tile:stop], source[rows[k + 7], tile:stop]
                for b in range(total.size):
                    total[b] += ((v0 * s0[b] + v1 * s1[b]) + (v2 * s2[b] + v3 * s3[b])) + (
                        (v4 * s4[b] + v5 * s5[b]) + (v6 * s6[b] + v7 * s7[b])
                    )
                k += 8
            while k < last:
                value = values[k] if ordered else values[positions[k]]
                single = source[rows[k], tile:stop]
                for b in range(total.size):
                    total[b] += value * single[b]
                k += 1


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
        starts: Where the entries of each row of `right` start, `[rights + 1]`.
        rows: The row of `left` of each entry, `[kept]`.
        left: `[lefts, batch]`.
        right: `[rights, batch]`.
        result: `[kept]`; it need not be set to zero before.
        begin: The first row of `right` whose entries are computed.
        end: The row after the last one.
    """
    result[starts[begin] : starts[end]] = 0
    zero = left.dtype.type(0)
    for tile in range(0, left.shape[1], TILE):
        stop = min(tile + TILE, left.shape[1])
        for row in range(begin, end):
            factor = right[row, tile:stop]
            k, last = starts[row], starts[row + 1]
            while k + 4 <= last:
                s0, s1 = left[rows[k], tile:stop], left[rows[k + 1], tile:stop]
                s2, s3 = left[rows[k + 2], tile:stop], left[rows[k + 3], tile:stop]
                d0 = d1 = d2 = d3 = zero
                for b in range(factor.size):
                    d0 += s0[b] * factor[b]
                    d1 += s1[b] * factor[b]
                    d2 += s2[b] * factor[b]
                    d3 += s3[b] * factor[b]
                result[k] += d0
                result[k + 1] += d1
                result[k + 2] += d2
                result[k + 3] += d3
                k += 4
            while k < last:
                single = left[rows[k], tile:stop]
                d0 = zero
                for b in range(factor.size):
                    d0 += single[b] * factor[b]
                result[k] += d0
                k += 1
