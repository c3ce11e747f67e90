"""Train a vector of the kept values, scattered into the dense weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy
from masksweep.strategies.registry import register


def _positions(mask: Mask) -> Array:
    """Flat position of every kept entry, `[kept]` int32."""
    return np.flatnonzero(mask).astype(np.int32)


@register
@dataclass(frozen=True)
class SparseValues(Strategy):
    """Trains a vector of the kept values, scattered over the held ones for the forward pass.

    `v` is `[kept]`; masked entries are no variable at all, so no optimizer, decay or EMA can reach
    them, and the optimizer's slots shrink with the density. Any layer.
    """

    name: ClassVar[str] = "sparse_values"

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
            layout=_positions,
            keep=lambda held, m: held,
            init=lambda w, m, h: tf.gather(tf.reshape(w, [-1]), m),
            substitute=scatter,
        )
