"""Where the entries of a sparse kernel are, for the products forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from masksweep.strategies.base import Array, Mask


class Structure(NamedTuple):
    """The places of the kept entries of a kernel `[inputs, outputs]`, by output and by input.

    The values of the kernel are stored by output: first those of output 0, then of output 1, and
    so on, and by input within an output. This is the CSR format of the transposed kernel. The other
    three arrays are the same entries by input, so that the gradient of the inputs, too, reads one
    row after the other.
    """

    output_starts: Array
    """`[outputs + 1]`: output `o` has the entries from `output_starts[o]` to the next start."""
    inputs: Array
    """`[kept]`: the input of each entry, by output."""
    input_starts: Array
    """`[inputs + 1]`: the same as `output_starts`, for the entries by input."""
    outputs: Array
    """`[kept]`: the output of each entry, by input."""
    positions: Array
    """`[kept]`: for each entry by input, its position among the entries by output."""


def pack(mask: Mask) -> Array:
    """Returns the structure of a mask as one array, whose length depends on counts alone.

    So one compiled training program serves every mask with as many kept entries.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.

    Returns:
        The five arrays of `Structure` one after the other, int32,
        `[inputs + outputs + 2 + 3 * kept]`.

    Example:
        >>> mask = np.array([[True, False], [True, True]])
        >>> unpack(pack(mask), inputs=2, outputs=2).inputs.tolist()
        [0, 1, 1]
    """
    matrix = mask.reshape(-1, mask.shape[-1])
    outputs, inputs = np.divmod(np.flatnonzero(matrix.T), max(1, len(matrix)))
    return pack_entries(inputs.astype(np.int32), outputs.astype(np.int32), matrix.shape)


def pack_entries(inputs: Array, outputs: Array, shape: tuple[int, int]) -> Array:
    """Returns the result of `pack` from the kept entries.

    Args:
        inputs: The input of each entry, by output, and within an output in order, `[kept]` int32.
        outputs: The output of each entry, `[kept]` int32.
        shape: Numbers of inputs and outputs of the kernel.
    """
    by_input = np.argsort(inputs, kind="stable").astype(np.int32)
    return np.concatenate(
        Structure(
            _starts(outputs, shape[1]),
            inputs,
            _starts(inputs, shape[0]),
            outputs[by_input],
            by_input,
        )
    )


def _starts(rows: Array, count: int) -> Array:
    ends = np.cumsum(np.bincount(rows, minlength=count))
    return np.concatenate([[0], ends]).astype(np.int32)


def unpack(packed: Array, inputs: int, outputs: int) -> Structure:
    """Returns the arrays of a structure, as views of the array that `pack` returned.

    Args:
        packed: The result of `pack`.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.
    """
    kept = (len(packed) - inputs - outputs - 2) // 3
    ends = np.cumsum([outputs + 1, kept, inputs + 1, kept])
    return Structure(*np.split(packed, ends))


def flat_indices(packed: Any, inputs: int, outputs: int) -> Any:
    """Returns the indices of the kept entries in the flattened kernel, in the order of the values.

    Args:
        packed: The structure of the kernel, as `pack` returns it.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.

    Returns:
        `[kept]`, int64.
    """
    import tensorflow as tf

    kept = (packed.shape[0] - inputs - outputs - 2) // 3
    starts = packed[: outputs + 1]
    rows = tf.cast(packed[outputs + 1 : outputs + 1 + kept], tf.int64)
    columns = tf.repeat(tf.range(outputs, dtype=tf.int64), starts[1:] - starts[:-1])
    return tf.ensure_shape(rows * outputs + columns, [kept])
