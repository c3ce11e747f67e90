"""The compiled products of whole blocks, as a TensorFlow operation with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.kernels import numpy_product
from masksweep.strategies.kernels.block import unpack
from masksweep.strategies.kernels.block_products import (
    MULTIPLY_BLOCKS,
    SUM_BLOCKS,
    SUM_TILES,
    WIDTHS,
)
from masksweep.strategies.kernels.numpy_product import Call, Products, empty, share, tiled
from masksweep.strategies.plan import Array


def multiply(x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel`, as `numpy_product.multiply` does. No number of threads changes a bit.

    Args:
        x: Inputs, `[rows, inputs]`.
        values: The kept values by block, `[kept]`, in the order of `block.flat_indices`.
        packed: The structure of the kernel, as `block.pack` returns it.
        outputs: Number of columns of the kernel.

    Returns:
        `[rows, outputs]`, in the dtype of the computation.

    Example:
        >>> import tensorflow as tf
        >>> from masksweep.strategies.kernels.block import pack
        >>> mask = np.array([[True, True, False, False]])
        >>> x, values = tf.constant([[10.0]]), tf.constant([2.0, 3.0])
        >>> multiply(x, values, pack(mask), outputs=4).numpy()
        array([[20., 30.,  0.,  0.]], dtype=float32)
    """
    return numpy_product.multiply(
        Products(_forward, _backward, _of_values), x, values, packed, outputs
    )


def _forward(packed: Array, values: Array, source: Array, call: Call) -> Array:
    (height, width), blocks = unpack(packed, call.inputs, call.outputs)
    places = blocks.output_starts, blocks.inputs, np.arange(len(blocks.inputs), dtype=np.int32)
    return _weighted_sums(*places, (width, height, 1, width), values, source, call.threads)


def _backward(packed: Array, values: Array, upstream: Array, call: Call) -> Array:
    (height, width), blocks = unpack(packed, call.inputs, call.outputs)
    places = blocks.input_starts, blocks.outputs, blocks.positions
    return _weighted_sums(*places, (height, width, width, 1), values, upstream, call.threads)


def _weighted_sums(
    starts: Array,
    rows: Array,
    positions: Array,
    sizes: tuple[int, int, int, int],
    values: Array,
    source: Array,
    threads: int,
) -> Array:
    """Returns all rows of the result of `sum_blocks`."""
    lanes, (padded,) = tiled(SUM_TILES, source)
    result = empty(((len(starts) - 1) * sizes[0], padded.shape[1]), source)
    arrays = starts, rows, positions, np.array(sizes, np.int32), values, padded, result
    share(starts, threads, lambda *rows: SUM_BLOCKS[lanes](*arrays, *rows))
    return result[:, : source.shape[1]]


def _of_values(packed: Array, source: Array, upstream: Array, call: Call) -> Array:
    (height, width), blocks = unpack(packed, call.inputs, call.outputs)
    result = empty((len(blocks.inputs) * height * width,), source)
    sizes = np.array([width, height], np.int32)
    arrays = blocks.output_starts, blocks.inputs, sizes, source, upstream, result
    multiply_blocks = MULTIPLY_BLOCKS[next(lanes for lanes in WIDTHS if width % lanes == 0)]
    share(blocks.output_starts, call.threads, lambda *rows: multiply_blocks(*arrays, *rows))
    return result
