"""The `row_lookup` strategy: look the kept rows up, so that only they get a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.plan import Array, Mask, Plan
from masksweep.strategies.registry import register


def _kept_rows(mask: Mask) -> Array:
    """Returns the indices of the kept rows, `[kept]` int32."""
    return np.flatnonzero(mask.any(axis=1)).astype(np.int32)


@register
@dataclass(frozen=True)
class RowLookup(Strategy):
    """Looks the kept rows up in a dense variable: `tf.nn.embedding_lookup(v, rows)`.

    `v` is the weight `[rows, columns]`, and `rows` the indices of the kept rows. The gradient is
    a `tf.IndexedSlices` of these rows, and the optimizer gets it in this form.

    Holds: whole rows (inputs of a Dense kernel, words of an Embedding), where `gradient_mask`
    holds: the optimizer does not update a row for which it never got a gradient. Leaks: where
    `gradient_mask` leaks, except under Muon without weight decay, which does not change rows that
    have no gradient.

    SGD updates only the rows of the slices. Keras' Adam has dense moments and updates every row in
    every step; a masked row stays the same only because its moments are zero. So after a change of
    the mask, rows that were looked up before continue to move.
    """

    name: ClassVar[str] = "row_lookup"

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            if w.mask.ndim != 2:
                return f"{w.weight.name}: a look-up is of the rows of a matrix"
            if not (w.mask == w.mask[:, :1]).all():
                return f"{w.weight.name}: a look-up is of whole rows, not scattered weights"
        return None

    def bind(self) -> Binding:
        import tensorflow as tf

        def with_rows(others: Any, rows: Any, m: Any) -> Any:
            return tf.tensor_scatter_nd_update(others, m[:, None], rows)

        return Binding(
            layout=_kept_rows,
            keep=lambda held, m: held,
            init=lambda w, m, h: with_rows(h, tf.gather(w, m), m),
            substitute=lambda v, m, h: with_rows(
                tf.stop_gradient(v), tf.nn.embedding_lookup(v, m), m
            ),
            effective=lambda v, m, h: tf.identity(v),
            slices=True,
        )
