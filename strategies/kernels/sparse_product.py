"""The compiled products of single entries, as a TensorFlow operation with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.kernels import numpy_product
from masksweep.strategies.kernels.numpy_product import Call, Products, empty, share, tiled
from masksweep.strategies.kernels.products import DOT_ROWS, SUM_ROWS, TILES
from masksweep.strategies.kernels.structure import unpack
from masksweep.strategies.plan import Array

IN_ORDER = np.empty(0, np.int32)


def multiply(x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel`, as `numpy_product.multiply` does. No number of threads changes a bit.

    Args:
        x: Inputs, `[rows, inputs]`.
        values: The kept values by output, `[kept]`.
        packed: The structure of the kernel, as `structure.pack` returns it.
        outputs: Number of columns of the kernel.

    Returns:
        `[rows, outputs]`, in the dtype of the computation.

    Example:
        >>> import tensorflow as tf
        >>> from masksweep.strategies.kernels.structure import pack
        >>> mask = np.array([[True, False], [False, True]])
        >>> x, values = tf.constant([[1.0, 10.0]]), tf.constant([2.0, 3.0])
        >>> multiply(x, values, pack(mask), outputs=2).numpy()
        array([[ 2., 30.]], dtype=float32)
    """
    products = Products(_forward, _backward, _of_values)
    return numpy_product.multiply(products, x, values, packed, outputs)


def _forward(packed: Array, values: Array, source: Array, call: Call) -> Array:
    kernel = unpack(packed, call.inputs, call.outputs)
    arrays = kernel.output_starts, kernel.inputs, IN_ORDER, values, source
    return _weighted_sums(call.outputs, *arrays, threads=call.threads)


def _backward(packed: Array, values: Array, upstream: Array, call: Call) -> Array:
    kernel = unpack(packed, call.inputs, call.outputs)
    arrays = kernel.input_starts, kernel.outputs, kernel.positions, values, upstream
    return _weighted_sums(call.inputs, *arrays, threads=call.threads)


def _weighted_sums(count: int, *arrays: Array, threads: int) -> Array:
    """Returns all rows of the result of `sum_rows`."""
    *others, source = arrays
    lanes, (padded,) = tiled(TILES, source)
    result = empty((count, padded.shape[1]), source)
    sum_rows = SUM_ROWS[lanes]
    share(others[0][: count + 1], threads, lambda *rows: sum_rows(*others, padded, result, *rows))
    return result[:, : source.shape[1]]


def _of_values(packed: Array, source: Array, upstream: Array, call: Call) -> Array:
    kernel = unpack(packed, call.inputs, call.outputs)
    lanes, arrays = tiled(TILES, source, upstream)
    result, starts = empty(kernel.inputs.shape, source), kernel.output_starts
    result[starts[-1] :] = 0  # of places without an entry
    dot_rows = DOT_ROWS[lanes]
    share(
        starts[: call.outputs + 1],
        call.threads,
        lambda *rows: dot_rows(starts, kernel.inputs, *arrays, result, *rows),
    )
    return result
