"""The `sparse_values` strategy: train a vector of the kept values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy
from masksweep.strategies.registry import register


def _kept_positions(mask: Mask) -> Array:
    """Returns the position of each kept entry in the flat weight, `[kept]` int32."""
    return np.flatnonzero(mask).astype(np.int32)


@register
@dataclass(frozen=True)
class SparseValues(Strategy):
    """Trains a vector of the kept values, scattered into the held values for the forward pass.

    `v` is `[kept]`, and the forward pass uses `tensor_scatter_nd_update(h, kept positions, v)`,
    with `h` the held values. Masked entries are not in any variable that trains, so no optimizer,
    weight decay or EMA can move them. The optimizer's slots have the shape of `v`, so they need
    less memory at a lower density. It can be used with any layer, but refuses weights with a
    constraint.

    Example:
        >>> import numpy as np
        >>> binding = SparseValues().bind()
        >>> m = binding.layout(np.array([[True, False], [False, True]]))
        >>> m
        array([0, 3], dtype=int32)
        >>> binding.substitute([1.0, 2.0], m, np.full((2, 2), 0.5, "float32")).numpy()
        array([[1. , 0.5],
               [0.5, 2. ]], dtype=float32)
    """

    name: ClassVar[str] = "sparse_values"
    follows = "equal counts"

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            if w.weight.constrained:
                return f"{w.weight.name}: a constraint needs the whole weight, not its kept values"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        def scatter(v: Any, m: Any, h: Any) -> Any:
            flat = tf.tensor_scatter_nd_update(tf.reshape(h, [-1]), m[:, None], v)
            return tf.reshape(flat, h.shape)

        return Binding(
            layout=_kept_positions,
            keep=lambda held, m: held,
            init=lambda w, m, h: tf.gather(tf.reshape(w, [-1]), m),
            substitute=scatter,
        )
