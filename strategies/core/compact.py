"""The mask and the held values of a weight of which only the kept values are stored."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.plan import Array, Mask


class MaskBits:
    """A mask in memory as bits, which is an eighth of a boolean array.

    The audit compares with it. The strategy computes with its own layout of the mask, so that an
    error in this layout is found.

    Args:
        mask: The mask.

    Example:
        >>> bits = MaskBits(np.array([[True, False], [True, True]]))
        >>> bits.variable.shape, bits.numpy().tolist()
        (TensorShape([1]), [[True, False], [True, True]])
    """

    def __init__(self, mask: Mask) -> None:
        self.shape = mask.shape
        self.variable = keras.Variable(
            np.packbits(mask), dtype="uint8", trainable=False, name="kept"
        )
        """The bits of the flattened mask, `[ceil(size / 8)]`, as `numpy.packbits` returns them."""

    @property
    def value(self) -> Any:
        """The mask as a boolean tensor."""
        places = tf.constant([128, 64, 32, 16, 8, 4, 2, 1], tf.uint8)
        mask = tf.bitwise.bitwise_and(self.variable.value[:, None], places) > 0
        return tf.reshape(tf.reshape(mask, [-1])[: math.prod(self.shape)], self.shape)

    @property
    def masked(self) -> int:
        """Number of masked entries."""
        return math.prod(self.shape) - int(np.bitwise_count(self.variable.numpy()).sum())

    def at(self, places: Array) -> Mask:
        """Returns the entries of the mask at some places.

        Args:
            places: Indices in the flattened mask, `[entries]`.
        """
        shift = (7 - places % 8).astype(np.uint8)
        bits: Array = self.variable.numpy()[places // 8] >> shift & np.uint8(1)
        return bits.astype(bool)

    def numpy(self) -> Mask:
        """Returns the mask as a NumPy array."""
        bits = np.unpackbits(self.variable.numpy(), count=math.prod(self.shape))
        mask: Mask = bits.view(bool).reshape(self.shape)
        return mask


class Zeros:
    """Held values that are all +0.0, of which only the shape and the dtype are in memory."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    @property
    def value(self) -> Any:
        """The held values as a tensor."""
        return tf.zeros(self.shape, self.dtype)

    def numpy(self) -> Array:
        """Returns the held values as a view of one zero."""
        return np.broadcast_to(np.zeros((), tf.as_dtype(self.dtype).as_numpy_dtype), self.shape)
