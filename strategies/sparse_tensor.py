"""Train the values inside a `tf.SparseTensor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from strategies.base import Array, Binding, Mask, Plan, Strategy, require


def _indices(mask: Mask) -> Array:
    """Row and column of every kept entry in row-major order, `[kept, 2]` int64."""
    return np.argwhere(mask).astype(np.int64)


def _rewrite(model: Any, names: Sequence[str]) -> Any:
    """The same model, whose named Dense layers multiply by a sparse kernel."""
    import keras
    import tensorflow as tf

    class SparseDense(keras.layers.Dense):  # type: ignore[misc]
        """Dense, where the kernel's value is a `tf.SparseTensor` `[inputs, units]`."""

        def call(self, inputs: Any, training: Any = None) -> Any:
            flat = tf.reshape(inputs, [-1, inputs.shape[-1]])
            # (W^T x^T)^T: the sparse operand can only stand on the left
            y = tf.transpose(
                tf.sparse.sparse_dense_matmul(
                    self.kernel.value, flat, adjoint_a=True, adjoint_b=True
                )
            )
            y = tf.reshape(y, tf.concat([tf.shape(inputs)[:-1], [self.units]], 0))
            y.set_shape([*inputs.shape[:-1], self.units])
            if self.use_bias:
                y = y + self.bias
            return self.activation(y) if self.activation is not None else y

    layers = {name.rsplit("/", 1)[0] for name in names}

    def clone(layer: Any) -> Any:
        kind = SparseDense if layer.name in layers else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone, call_function=None)


@dataclass(frozen=True)
class SparseTensor(Strategy):
    """Trains the values inside a `tf.SparseTensor`; removed connections do not exist.

    `v` is `[kept]` and `y = sparse_dense_matmul(W^T, x^T)^T`. Dense kernels held at zero only: a
    sparse matrix has no place for another value. Sparse products do not compile under XLA and
    are slow on a CPU; `speed/ratio_to_dense` says how slow.
    """

    name: ClassVar[str] = "sparse_tensor"
    xla: ClassVar[bool] = False
    format: Literal["coo"] = "coo"

    def __post_init__(self) -> None:
        require(self.format == "coo", "format", self.format, "coo")

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            name = w.weight.name
            if w.weight.layer != "Dense" or not w.weight.is_kernel:
                return f"{name}: only a Dense kernel can be a sparse matrix"
            if "/" in name.rsplit("/", 1)[0]:
                return f"{name}: layers inside other layers cannot be rewritten"
            if w.weight.constrained or w.weight.regularized:
                return f"{name}: a constraint or regularizer needs the dense kernel"
            if not w.holds_zero:
                return f"{name}: a sparse matrix holds zero only"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        return Binding(
            rewrite=_rewrite,
            layout=_indices,
            init=lambda w, m, h: tf.gather_nd(w, m),
            substitute=lambda v, m, h: tf.SparseTensor(m, v, h.shape),
            effective=lambda v, m, h: tf.tensor_scatter_nd_update(h, m, v),
        )
