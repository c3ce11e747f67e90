"""Values of single entries of a weight, by their places.

A place is the index of an entry in the flattened weight. For a value that is left over (see
`Binding.padded`) it is `-1 - index` of a masked entry.
"""

from __future__ import annotations

from typing import Any


def indices(places: Any) -> Any:
    """Returns the index of the entry at each place, also of those that are left over."""
    import tensorflow as tf

    return tf.maximum(places, -1 - places)


def gather(weight: Any, places: Any) -> Any:
    """Returns the entries of a weight at some places, in the shape of `places`."""
    import tensorflow as tf

    return tf.gather(tf.reshape(weight, [-1]), indices(places))


def scatter(values: Any, places: Any, held: Any) -> Any:
    """Returns the held values, in the weight's shape, with other values at some places.

    Values that are left over are ignored, so they have no gradient.

    Example:
        >>> import tensorflow as tf
        >>> scatter(tf.constant([1.0, 9.0]), tf.constant([2, -1]), tf.zeros((2, 2))).numpy()
        array([[0., 0.],
               [1., 0.]], dtype=float32)
    """
    import tensorflow as tf

    values = tf.where(places < 0, gather(held, places), values)
    flat = tf.reshape(held, [-1])
    flat = tf.tensor_scatter_nd_update(flat, indices(places)[..., None], values)
    return tf.reshape(flat, held.shape)
