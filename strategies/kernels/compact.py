"""A kernel of which whole rows and columns are kept, as a small dense kernel.

If all kept entries are in the kept rows (inputs) and columns (outputs), and these have no masked
entry, the product is the one of the kept inputs with a dense kernel `[kept rows, kept columns]`.
The inputs are gathered, and the outputs are put among zeros. The gradients are computed the same
way, with rows and columns exchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.plan import Array, Mask


def is_compact(mask: Mask) -> bool:
    """Returns whether a mask consists of whole rows and columns.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.

    Example:
        >>> is_compact(np.array([[True, False], [True, False]]))
        True
        >>> is_compact(np.array([[True, False], [False, True]]))
        False
    """
    matrix = mask.reshape(-1, mask.shape[-1])
    rows, columns = matrix.any(1), matrix.any(0)
    return int(matrix.sum()) == int(rows.sum()) * int(columns.sum())


def pack(mask: Mask) -> Array:
    """Returns the places of the kept entries of a mask.

    The numbers of kept rows and columns are its shape, so that one compiled training program serves
    every mask with as many of them, and no other.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.

    Returns:
        The index of each kept entry in the flattened kernel, `[kept rows, kept columns]`, int32, or
        int64 for a kernel that needs it.

    Raises:
        Invalid: The mask does not consist of whole rows and columns.

    Example:
        >>> pack(np.array([[True, False, True], [False, False, False]])).tolist()
        [[0, 2]]
    """
    require(is_compact(mask), "format", "compact", "another one: the mask has no whole rows")
    matrix = mask.reshape(-1, mask.shape[-1])
    rows, columns = np.flatnonzero(matrix.any(1)), np.flatnonzero(matrix.any(0))
    dtype = np.int32 if mask.size <= np.iinfo(np.int32).max else np.int64
    return (rows[:, None] * matrix.shape[1] + columns).astype(dtype)


def multiply(x: Any, values: Any, packed: Any, outputs: int) -> Any:
    """Returns `x @ kernel` for a compact kernel, and can be differentiated once.

    Args:
        x: Inputs, `[rows, inputs]`.
        values: The small dense kernel, `[kept rows, kept columns]`.
        packed: The places of the kept entries, as `pack` returns them.
        outputs: Number of columns of the kernel.

    Returns:
        `[rows, outputs]`, in the dtype of the values.

    Example:
        >>> import tensorflow as tf
        >>> mask = np.array([[True, False, True], [False, False, False]])
        >>> x, values = tf.constant([[1.0, 10.0]]), tf.constant([[2.0, 3.0]])
        >>> multiply(x, values, pack(mask), outputs=3).numpy()
        array([[2., 0., 3.]], dtype=float32)
    """
    import tensorflow as tf

    inputs = x.shape[-1]
    rows = tf.cast(tf.reshape(packed[:, :1], [-1]) // outputs, tf.int32)
    columns = tf.cast(tf.reshape(packed[:1], [-1]) % outputs, tf.int32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def product(x: Any, kernel: Any) -> Any:
        kept_inputs = _kept(x, rows)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            upstream = _kept(upstream, columns)
            of_inputs = tf.matmul(upstream, kernel, transpose_b=True)
            of_kernel = tf.matmul(kept_inputs, upstream, transpose_a=True)
            return _spread(of_inputs, rows, inputs), of_kernel

        return _spread(tf.matmul(kept_inputs, kernel), columns, outputs), gradient

    return product(tf.cast(x, values.dtype), values)


def flat_indices(packed: Any, inputs: int, outputs: int) -> Any:
    """Returns the indices of the kept entries in the flattened kernel, in the order of the values.

    Args:
        packed: The places of the kept entries, as `pack` returns them.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.

    Returns:
        `[kept rows, kept columns]`, int64.
    """
    import tensorflow as tf

    return tf.cast(packed, tf.int64)


def _kept(array: Any, indices: Any) -> Any:
    """Returns the columns of an array `[rows, size]` at the indices."""
    import tensorflow as tf

    # if all are kept, the indices are all in their order, and a gather would only take time
    return array if indices.shape[0] == array.shape[1] else tf.gather(array, indices, axis=1)


def _spread(kept: Any, indices: Any, size: int) -> Any:
    """Returns `[rows, size]` with the columns of `kept` at the indices, and zeros elsewhere."""
    import tensorflow as tf

    if kept.shape[1] == size:
        return kept
    # A gather, because TensorFlow's scatter takes no empty batch. It takes rows of the transposed
    # array, because one of columns is several times slower.
    count = kept.shape[1]
    sources = tf.tensor_scatter_nd_update(tf.fill([size], count), indices[:, None], tf.range(count))
    spread = tf.gather(tf.pad(tf.transpose(kept), [[0, 1], [0, 0]]), sources)
    return tf.ensure_shape(tf.transpose(spread), [kept.shape[0], size])
