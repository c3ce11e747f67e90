"""The `sparse_tensor` strategy: train the values inside a `tf.SparseTensor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy, require
from masksweep.strategies.registry import register


def _indices(mask: Mask) -> Array:
    """Returns row and column of each kept entry, in row-major order, `[kept, 2]` int64."""
    return np.argwhere(mask).astype(np.int64)


def _indices_by_output(mask: Mask) -> Array:
    """Returns row and column of each kept entry, in column-major order, `[kept, 2]` int64."""
    return np.argwhere(mask.T)[:, ::-1].astype(np.int64)


def _multiply(kernel: Any, x: Any) -> Any:
    """Returns `x @ kernel` for a sparse kernel `[inputs, units]` and `x` of `[batch, inputs]`."""
    import tensorflow as tf

    # computed as (W^T x^T)^T, because TensorFlow takes a sparse matrix only as the left operand
    return tf.transpose(tf.sparse.sparse_dense_matmul(kernel, x, adjoint_a=True, adjoint_b=True))


def _look_up(kernel: Any, x: Any) -> Any:
    """Returns `x @ kernel`, computed for each unit as a weighted sum of its inputs.

    The entries of the kernel must be sorted by unit (column-major order).
    """
    import tensorflow as tf

    unit_first, shape = tf.reverse(kernel.indices, [1]), kernel.dense_shape[::-1]
    inputs = tf.SparseTensor(unit_first, kernel.indices[:, 0], shape)
    weights = tf.SparseTensor(unit_first, kernel.values, shape)
    y = tf.nn.embedding_lookup_sparse(tf.transpose(x), inputs, weights, combiner="sum")
    # the result has no rows for the last units if these have no inputs
    y = tf.pad(y, [[0, shape[0] - tf.shape(y, tf.int64)[0]], [0, 0]])
    return tf.transpose(y)


def _dense(
    product: Callable[[Any, Any], Any], layer: Any, inputs: Any, v: Any, m: Any, h: Any
) -> Any:
    """Computes a Dense layer with a sparse kernel."""
    import tensorflow as tf

    kernel = tf.SparseTensor(m, v, h.shape)
    # TensorFlow has no sparse products in half precision
    y = product(kernel, tf.cast(tf.reshape(inputs, [-1, inputs.shape[-1]]), v.dtype))
    y = tf.cast(y, layer.compute_dtype)
    y = tf.reshape(y, tf.concat([tf.shape(inputs)[:-1], [layer.units]], 0))
    y.set_shape([*inputs.shape[:-1], layer.units])
    y = y + layer.bias if layer.use_bias else y
    return layer.activation(y) if layer.activation is not None else y


@register
@dataclass(frozen=True)
class SparseTensor(Strategy):
    """Trains the values inside a `tf.SparseTensor`; masked entries are not stored at all.

    `v` are the kept values, `[kept]`, `W` is the sparse kernel, `[inputs, units]`, and `x` are the
    inputs, `[batch, inputs]`. The outputs are

    - with `format="coo"`, `y = sparse_dense_matmul(W^T, x^T)^T`;
    - with `format="lookup"`, `y = embedding_lookup_sparse(x^T, inputs of each unit, v)^T`, as
      TensorFlow's guide to sparse tensors does for wide models.

    Holds: kernels of Dense layers, at zero, because a sparse matrix cannot store another value for
    its missing entries. It refuses kernels with a constraint or regularizer, and kernels that
    another layer also uses.

    Neither format compiles with XLA, and both are slow on a CPU; `speed/ratio_to_dense` tells how
    slow. Each step makes a new `tf.SparseTensor` from the variable `v`. A `tf.SparseTensor` that is
    made once has a copy of the values, and does not train.

    Raises:
        Invalid: `format` is neither `coo` nor `lookup`.
    """

    name: ClassVar[str] = "sparse_tensor"
    xla: ClassVar[bool] = False
    format: Literal["coo", "lookup"] = "coo"
    """How the layer computes its outputs: by a sparse product, or by look-ups."""

    def __post_init__(self) -> None:
        require(self.format in ("coo", "lookup"), "format", self.format, "coo or lookup")

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            name = w.weight.name
            if w.weight.layer != "Dense" or not w.weight.is_kernel:
                return f"{name}: only a Dense kernel can be a sparse matrix"
            if w.weight.shared:
                return f"{name}: another layer uses this kernel too, and needs it dense"
            if w.weight.constrained or w.weight.regularized:
                return f"{name}: a constraint or regularizer needs the dense kernel"
            if not w.holds_zero:
                return f"{name}: a sparse matrix holds zero only"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        formats = {"coo": (_multiply, _indices), "lookup": (_look_up, _indices_by_output)}
        product, layout = formats[self.format]
        return Binding(
            layout=layout,
            keep=lambda held, m: held,
            init=lambda w, m, h: tf.gather_nd(w, m),
            substitute=lambda v, m, h: tf.tensor_scatter_nd_update(h, m, v),
            dense_call=partial(_dense, product),
        )
