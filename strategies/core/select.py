"""Chooses between two arrays by a mask, faster than `tf.where`."""

from __future__ import annotations

from typing import Any


def select(mask: Any, kept: Any, others: Any) -> Any:
    """Returns `tf.where(mask, kept, others)`.

    `tf.where` broadcasts its arguments, also where they have one shape. Without XLA, this function
    takes about two thirds of its time: TensorFlow's older operation does not broadcast.

    Args:
        mask: Booleans, in the shape of `kept`.
        kept: The values where the mask is true.
        others: The values where it is false: an array of the same shape, or a scalar.

    Example:
        >>> select([True, False], [1.0, 2.0], 0.0).numpy()
        array([1., 0.], dtype=float32)
    """
    import tensorflow as tf

    kept = tf.convert_to_tensor(kept)
    # the gradient of a kernel that is used on sequences has no known shape
    shape = kept.shape if kept.shape.is_fully_defined() else tf.shape(kept)
    return tf.compat.v1.where(mask, kept, tf.broadcast_to(others, shape))
