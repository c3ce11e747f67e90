"""Draws initial values at chosen places of a weight, without the dense weight in memory."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.plan import Array

PART = 2**18
"""Number of values that are drawn at once."""
GROUP = 4
"""TensorFlow's generator, Philox4x32-10, draws so many float32 at each value of its counter."""


def draw_entries(initializer: Any, shape: tuple[int, ...], dtype: str, places: Array) -> Array:
    """Returns the values that an initializer draws at some places of a weight.

    They have the bits of the dense weight that the initializer draws. A uniform distribution in
    float32, such as Keras' default for kernels, is drawn at these places only. For another
    initializer, the dense weight is in memory for a moment.

    Args:
        initializer: A Keras initializer, or a function `(shape, dtype) -> values`.
        shape: The shape of the weight.
        dtype: Its dtype.
        places: Indices in the flattened weight, `[entries]`, int64, in any order.

    Returns:
        The values, `[entries]`.

    Example:
        >>> initializer = keras.initializers.GlorotUniform(seed=0)
        >>> dense = np.asarray(initializer((30, 40), "float32"))
        >>> places = np.array([7, 1100, 40])
        >>> entries = draw_entries(initializer, (30, 40), "float32", places)
        >>> bool((entries == dense.flat[places]).all())
        True
    """
    limits = _uniform_limits(initializer, shape)
    if limits is None or dtype != "float32":
        with tf.init_scope():
            dense = tf.convert_to_tensor(initializer(shape, dtype=dtype))
            return np.asarray(tf.gather(tf.reshape(dense, [-1]), places))
    low, high = (np.float32(limit) for limit in limits)
    with tf.init_scope():
        seed = [initializer.seed % (tf.int32.max - 1), 0]  # as Keras makes an int32 of a seed
        generator = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
        key, counter = (np.asarray(array) for array in generator)
    values = np.empty(len(places), np.float32)
    for start in range(0, len(places), PART):
        part = slice(start, start + PART)
        values[part] = _uniform(places[part], key, counter) * (high - low) + low
    return values


def _uniform(places: Array, key: Array, counter: Array) -> Array:
    """Returns the numbers in [0, 1) that TensorFlow draws at some places of an array, float32.

    Args:
        places: Indices in the flattened array, `[entries]`.
        key: The generator's key, `[1]` uint64.
        counter: The generator's counter at the start of the array, `[2]` uint64, the lower first.

    Reference:
        Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, section 4.3.
    """
    groups = (places // GROUP).astype(np.uint64)
    lower = groups + counter[0]
    upper = counter[1] + (lower < groups)
    mask, shift = np.uint64(2**32 - 1), np.uint64(32)
    c0, c1, c2, c3 = lower & mask, lower >> shift, upper & mask, upper >> shift
    k0, k1 = int(key[0]) % 2**32, int(key[0]) >> 32
    for _ in range(10):
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c2 = (second >> shift) ^ c1 ^ np.uint64(k0), (first >> shift) ^ c3 ^ np.uint64(k1)
        c1, c3 = second & mask, first & mask
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    drawn = np.choose(places % GROUP, [c0, c1, c2, c3])
    bits = (drawn & np.uint64(0x7FFFFF) | np.uint64(0x3F800000)).astype(np.uint32)
    return bits.view(np.float32) - np.float32(1)


def _uniform_limits(initializer: Any, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Returns the limits of the uniform distribution that an initializer of Keras draws from.

    None if it draws in another way.
    """
    initializers, kind = keras.initializers, type(initializer)
    if not isinstance(getattr(initializer, "seed", None), int):
        return None
    if kind is initializers.RandomUniform:
        limits = initializer.minval, initializer.maxval
        return limits if all(isinstance(n, int | float) for n in limits) else None
    scaled = (
        initializers.VarianceScaling, initializers.GlorotUniform, initializers.HeUniform,
        initializers.LecunUniform,
    )  # fmt: skip
    if kind not in scaled or initializer.distribution != "uniform" or len(shape) != 2:
        return None
    if initializer.input_axes is not None or initializer.output_axes is not None:
        return None
    fan_in, fan_out = shape
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}
    limit = math.sqrt(3.0 * (initializer.scale / max(1.0, fans[initializer.mode])))
    return -limit, limit
