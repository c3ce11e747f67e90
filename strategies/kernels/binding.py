"""What `sparse_tensor` does with a kernel if its format is `compiled`."""

from __future__ import annotations

import math
from typing import Any

from masksweep.strategies.base import MATRIX_LAYERS, Binding
from masksweep.strategies.kernels.structure import flat_indices, pack

# Numba takes seconds to load, so the products are imported where a model is trained only


def binding() -> Binding:
    """Returns the functions over `v`, the kept values by output, and `m`, the packed structure."""
    return Binding(
        layout=pack,
        keep=lambda held, m: held,
        init=_gather,
        substitute=_scatter,
        matmul=_multiply,
        matmul_layers=MATRIX_LAYERS,
        places=_flat_indices,
    )


def dense_zeros(h: Any) -> Any:
    """Returns the held values as a dense tensor; they are zeros if `h` is a `tf.TensorSpec`."""
    import tensorflow as tf

    return tf.zeros(h.shape, h.dtype) if isinstance(h, tf.TensorSpec) else h


def _gather(w: Any, m: Any, h: Any) -> Any:
    import tensorflow as tf

    return tf.gather(tf.reshape(w, [-1]), _flat_indices(m, w.shape))


def _scatter(v: Any, m: Any, h: Any) -> Any:
    import tensorflow as tf

    flat = _flat_indices(m, h.shape)[:, None]
    held = tf.reshape(dense_zeros(h), [-1])
    return tf.reshape(tf.tensor_scatter_nd_update(held, flat, v), h.shape)


def _multiply(x: Any, v: Any, m: Any, h: Any) -> Any:
    from masksweep.strategies.kernels.sparse_product import multiply

    return multiply(x, v, m, h.shape[-1])


def _flat_indices(m: Any, shape: Any) -> Any:
    return flat_indices(m, math.prod(shape[:-1]), shape[-1])
