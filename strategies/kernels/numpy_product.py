"""Products of NumPy arrays as TensorFlow operations with gradients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies.plan import Array

ALIGNMENT = 64
"""TensorFlow takes an array that starts at a multiple of so many bytes without copying it."""
SMALL_TILE_COST = 1.3
"""A sample takes about so many times as long in the small tile of a kernel as in its large one."""


@dataclass(frozen=True)
class Call:
    """What a product gets besides its arrays."""

    inputs: int
    """Number of rows of the kernel."""
    outputs: int
    """Number of columns of the kernel."""
    threads: int


@dataclass(frozen=True)
class Products:
    """The three products with a sparse kernel, over NumPy arrays with the samples last.

    Each gets the structure of the kernel, two arrays and a `Call`.
    """

    forward: Callable[[Array, Array, Array, Call], Array]
    """(packed, values `[kept]`, inputs `[inputs, batch]`) -> `[outputs, batch]`."""
    backward: Callable[[Array, Array, Array, Call], Array]
    """(packed, values `[kept]`, gradient `[outputs, batch]`) -> `[inputs, batch]`."""
    of_values: Callable[[Array, Array, Array, Call], Array]
    """(packed, inputs `[inputs, batch]`, gradient `[outputs, batch]`) -> `[kept]`."""


def multiply(products: Products, x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel` for a sparse kernel, and can be differentiated once.

    The gradient of the inputs is not computed where no layer before needs it. As many threads are
    used as TensorFlow may use within an operation.

    Args:
        products: The products with the kernel.
        x: Inputs, `[rows, inputs]`.
        values: The kept values, `[kept]`, float32 or float64. Half precision is computed in
            float32.
        packed: The structure of the kernel, an array that the products know.
        outputs: Number of columns of the kernel.

    Returns:
        `[rows, outputs]`, in the dtype of the computation.
    """
    dtype = tf.float32 if values.dtype.size < 4 else values.dtype
    x, values = tf.cast(x, dtype), tf.cast(values, dtype)
    inputs = x.shape[-1]
    call = Call(inputs, outputs, _threads())

    def operation(function: Callable[..., Array], shape: Sequence[int | None], *arrays: Any) -> Any:
        called = partial(function, call=call)
        result = tf.numpy_function(called, [packed, *arrays], dtype, stateful=False)
        result.set_shape(shape)
        return result

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def product(x: Any, values: Any) -> Any:
        source = tf.transpose(x)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            upstream = tf.transpose(upstream)
            of_inputs = operation(products.backward, [inputs, x.shape[0]], values, upstream)
            of_values = operation(products.of_values, values.shape, source, upstream)
            return tf.transpose(of_inputs), of_values

        result = operation(products.forward, [outputs, x.shape[0]], values, source)
        return tf.transpose(result), gradient

    return product(x, values)


def tiled(tiles: tuple[int, int], *arrays: Array) -> tuple[int, list[Array]]:
    """Returns a tile, and the arrays with zeros for samples that are missing in the last tile.

    Args:
        tiles: Numbers of samples in a tile for which kernels are compiled: a large and a small one.
        *arrays: Arrays `[rows, batch]` of one batch.

    Returns:
        One of `tiles`, and the arrays with a multiple of so many samples.

    Example:
        >>> lanes, (array,) = tiled((128, 32), np.ones((2, 40)))
        >>> lanes, array.shape
        (32, (2, 64))
    """
    batch, (large, small) = arrays[0].shape[1], tiles
    large_tiles, small_tiles = -(-batch // large) * large, -(-batch // small) * small
    is_small = SMALL_TILE_COST * small_tiles < large_tiles
    lanes, samples = (small, small_tiles) if is_small else (large, large_tiles)
    if samples == batch:
        return lanes, list(arrays)
    return lanes, [np.pad(array, [(0, 0), (0, samples - batch)]) for array in arrays]


def share(starts: Array, threads: int, compute: Callable[[int, int], None]) -> None:
    """Computes all rows, divided among threads so that each has about as many entries.

    Args:
        starts: Where the entries of each row start, `[rows + 1]`.
        threads: Number of threads.
        compute: Computes the rows from the first to before the second argument.
    """
    if threads == 1:
        compute(0, len(starts) - 1)
        return
    bounds = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    ranges = list(pairwise([0, *bounds.tolist(), len(starts) - 1]))
    futures = [_pool(threads).submit(compute, *rows) for rows in ranges[1:]]
    compute(*ranges[0])
    for future in futures:
        future.result()


def empty(shape: tuple[int, ...], like: Array) -> Array:
    """Returns an array whose values are not set, which TensorFlow takes without copying it."""
    size = int(np.prod(shape)) * like.itemsize
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    result: Array = buffer[start : start + size].view(like.dtype).reshape(shape)
    return result


def _threads() -> int:
    """Returns how many threads TensorFlow may use within an operation."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "sparse_product")
