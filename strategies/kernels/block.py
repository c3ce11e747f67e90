"""A kernel that consists of whole blocks: where these are, and how large."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksweep.strategies.errors import require
from masksweep.strategies.kernels import structure
from masksweep.strategies.kernels.structure import Structure
from masksweep.strategies.plan import Array, Mask

MIN_ENTRIES = 2
"""Number of entries of the smallest block."""


def block_shape(mask: Mask) -> tuple[int, int]:
    """Returns the largest shape of blocks that a mask consists of.

    The kernel is divided into equal blocks, each of which is kept or masked as a whole. Two
    neighbouring rows can differ only at a multiple of the block's height, so the height is the
    greatest common divisor of the number of rows and of all places where they differ.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.

    Returns:
        (inputs, outputs) of a block; (1, 1) for scattered entries.

    Example:
        >>> block_shape(np.kron(np.eye(3), np.ones((4, 2))).astype(bool))
        (4, 2)
    """
    matrix = mask.reshape(-1, mask.shape[-1])
    row_changes = np.flatnonzero((matrix[1:] != matrix[:-1]).any(1)) + 1
    column_changes = np.flatnonzero((matrix[:, 1:] != matrix[:, :-1]).any(0)) + 1
    height = math.gcd(matrix.shape[0], *row_changes.tolist())
    return height, math.gcd(matrix.shape[1], *column_changes.tolist())


def has_blocks(mask: Mask) -> bool:
    """Returns whether a mask consists of blocks of more than one entry."""
    return math.prod(block_shape(mask)) >= MIN_ENTRIES


def pack(mask: Mask) -> Array:
    """Returns the blocks of a mask as one array, whose length depends on counts of blocks alone.

    Args:
        mask: The mask of a kernel, `[..., outputs]`. All axes but the last are inputs.

    Returns:
        The height and the width of a block, then the structure of the kept blocks as
        `structure.pack` returns it for a mask with an entry for each block, int32.

    Raises:
        Invalid: The mask does not consist of blocks.

    Example:
        >>> mask = np.array([[True, True, False, False]])
        >>> unpack(pack(mask), inputs=1, outputs=4)[0]
        (1, 2)
    """
    height, width = block_shape(mask)
    require(height * width >= MIN_ENTRIES, "format", "block", "another one: the mask has no blocks")
    grid = mask.reshape(-1, mask.shape[-1])[::height, ::width]
    return np.concatenate([[height, width], structure.pack(grid, max(grid.shape))]).astype(np.int32)


def unpack(packed: Array, inputs: int, outputs: int) -> tuple[tuple[int, int], Structure]:
    """Returns the shape of a block, and the structure of the kept blocks.

    Args:
        packed: The result of `pack`.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.
    """
    height, width = packed[:2].tolist()
    grid = inputs // height, outputs // width
    return (height, width), structure.unpack(packed[2:], *grid)


def flat_indices(packed: Any, inputs: int, outputs: int) -> Any:
    """Returns the indices of the kept entries in the flattened kernel, in the order of the values.

    The values are stored by block, and by input and output within a block. The blocks are sorted by
    output.

    Args:
        packed: The blocks, as `pack` returns them.
        inputs: Number of rows of the kernel.
        outputs: Number of columns of the kernel.

    Returns:
        `[kept]`, int64.
    """
    import tensorflow as tf

    packed = tf.cast(packed, tf.int64)
    height, width, grid_width = packed[0], packed[1], outputs // packed[1]
    starts = packed[3 : 4 + grid_width]
    rows = packed[4 + grid_width :][: starts[-1]]
    columns = tf.repeat(tf.range(grid_width), starts[1:] - starts[:-1])
    inside = tf.range(height)[:, None] * outputs + tf.range(width)
    first = rows * height * outputs + columns * width
    return tf.reshape(first[:, None, None] + inside, [-1])
