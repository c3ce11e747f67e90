"""The compiled products as TensorFlow operations with gradients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from masksweep.strategies.base import Array
from masksweep.strategies.kernels.products import dot_rows, sum_rows
from masksweep.strategies.kernels.structure import Structure, unpack

ALIGNMENT = 64
"""TensorFlow takes an array that starts at a multiple of so many bytes without copying it."""
IN_ORDER = np.empty(0, np.int32)


def multiply(x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel` for a sparse kernel, and can be differentiated once.

    The gradient of the inputs is not computed where no layer before needs it. As many threads are
    used as TensorFlow may use within an operation. Their number changes no bit.

    Args:
        x: Inputs, `[rows, inputs]`.
        values: The kept values by output, `[kept]`, float32 or float64. Half precision is computed
            in float32.
        packed: The structure of the kernel, as `structure.pack` returns it.
        outputs: Number of columns of the kernel.

    Returns:
        `[rows, outputs]`, in the dtype of the computation.

    Example:
        >>> from masksweep.strategies.kernels.structure import pack
        >>> mask = np.array([[True, False], [False, True]])
        >>> x, values = tf.constant([[1.0, 10.0]]), tf.constant([2.0, 3.0])
        >>> multiply(x, values, pack(mask), outputs=2).numpy()
        array([[ 2., 30.]], dtype=float32)
    """
    dtype = tf.float32 if values.dtype.size < 4 else values.dtype
    x, values = tf.cast(x, dtype), tf.cast(values, dtype)
    inputs, threads = x.shape[-1], _threads()

    def operation(function: Callable[..., Array], shape: Sequence[int | None], *arrays: Any) -> Any:
        call = partial(function, inputs=inputs, outputs=outputs, threads=threads)
        result = tf.numpy_function(call, [packed, *arrays], dtype, stateful=False)
        result.set_shape(shape)
        return result

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def product(x: Any, values: Any) -> Any:
        source = tf.transpose(x)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            upstream = tf.transpose(upstream)
            of_inputs = operation(_backward, [inputs, x.shape[0]], values, upstream)
            of_values = operation(_of_values, values.shape, source, upstream)
            return tf.transpose(of_inputs), of_values

        return tf.transpose(operation(_forward, [outputs, x.shape[0]], values, source)), gradient

    return product(x, values)


def _forward(packed: Array, values: Array, source: Array, **sizes: int) -> Array:
    kernel = _unpack(packed, sizes)
    arrays = kernel.output_starts, kernel.inputs, IN_ORDER, values, source
    return _weighted_sums(*arrays, threads=sizes["threads"])


def _backward(packed: Array, values: Array, upstream: Array, **sizes: int) -> Array:
    kernel = _unpack(packed, sizes)
    arrays = kernel.input_starts, kernel.outputs, kernel.positions, values, upstream
    return _weighted_sums(*arrays, threads=sizes["threads"])


def _weighted_sums(starts: Array, *arrays: Array, threads: int) -> Array:
    """Returns all rows of the result of `sum_rows`."""
    *_, source = arrays
    result = _empty((len(starts) - 1, source.shape[1]), source)
    _share(starts, threads, lambda *rows: sum_rows(starts, *arrays, result, *rows))
    return result


def _of_values(packed: Array, source: Array, upstream: Array, **sizes: int) -> Array:
    kernel = _unpack(packed, sizes)
    starts, arrays = kernel.output_starts, (kernel.inputs, source, upstream)
    result = _empty(kernel.inputs.shape, source)
    _share(starts, sizes["threads"], lambda *rows: dot_rows(starts, *arrays, result, *rows))
    return result


def _unpack(packed: Array, sizes: dict[str, int]) -> Structure:
    return unpack(packed, sizes["inputs"], sizes["outputs"])


def _share(starts: Array, threads: int, compute: Callable[[int, int], None]) -> None:
    """Computes all rows, divided among threads so that each has about as many kept entries."""
    if threads == 1:
        compute(0, len(starts) - 1)
        return
    bounds = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    ranges = list(pairwise([0, *bounds.tolist(), len(starts) - 1]))
    futures = [_pool(threads).submit(compute, *rows) for rows in ranges[1:]]
    compute(*ranges[0])
    for future in futures:
        future.result()


def _threads() -> int:
    """Returns how many threads TensorFlow may use within an operation."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "sparse_product")


def _empty(shape: tuple[int, ...], like: Array) -> Array:
    """Returns an array whose values are not set, which TensorFlow takes without copying it."""
    size = int(np.prod(shape)) * like.itemsize
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    result: Array = buffer[start : start + size].view(like.dtype).reshape(shape)
    return result
