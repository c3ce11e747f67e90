"""Look rows up, so that the gradient is sparse and touches no other row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from masksweep.strategies.base import Array, Binding, Mask, Plan, Strategy
from masksweep.strategies.registry import register


def _kept(mask: Mask) -> Array:
    """The rows that are kept, `[kept]` int32."""
    return np.flatnonzero(mask.any(axis=1)).astype(np.int32)


@register
@dataclass(frozen=True)
class RowLookup(Strategy):
    """Looks the kept rows up in a dense variable: `tf.nn.embedding_lookup(v, rows)`.

    The gradient is then a `tf.IndexedSlices` of those rows, and goes to the optimizer as such.
    Holds whole rows (the inputs of a Dense kernel, the words of an Embedding) as `gradient_mask`
    does, and leaks where that does, but for Muon, which leaves rows of zeros as they are: an
    optimizer leaves rows alone that it has never seen a gradient of. SGD really updates
    the rows of the slices only. Keras' Adam makes its moments dense and updates every row at every
    step; the others stand still only because their moments are zero, so rows that were looked up
    before a change of the mask move on.
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
            layout=_kept,
            keep=lambda held, m: held,
            init=lambda w, m, h: with_rows(h, tf.gather(w, m), m),
            substitute=lambda v, m, h: with_rows(
                tf.stop_gradient(v), tf.nn.embedding_lookup(v, m), m
            ),
            effective=lambda v, m, h: tf.identity(v),
            slices=True,
        )
