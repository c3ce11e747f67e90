"""The `sparse_values` strategy: train a vector of the kept values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.core import places
from masksweep.strategies.plan import Array, Mask, Plan
from masksweep.strategies.registry import register


def _kept_positions(mask: Mask, count: int = 0) -> Array:
    """Returns the position of each kept entry in the flat weight, int32.

    Args:
        mask: The mask.
        count: Number of positions that are wanted. Those that are missing are of masked entries,
            as `-1 - position`.

    Returns:
        `[max(kept, count)]`.
    """
    kept = np.flatnonzero(mask)
    masked = np.flatnonzero(~mask)[: max(0, count - len(kept))]
    return np.concatenate([kept, -1 - masked]).astype(np.int32)


@register
@dataclass(frozen=True)
class SparseValues(Strategy):
    """Trains a vector of the kept values, scattered into the held values for the forward pass.

    `v` are the kept values, `[kept]`, and `h` the held values. The forward pass uses
    `tensor_scatter_nd_update(h, kept positions, v)`. Masked entries are not in any variable that
    trains, so no optimizer, weight decay or EMA can move them. The optimizer's slots have the shape
    of `v`, so they need less memory at a lower density. It can be used with any layer, but refuses
    weights with a constraint.

    It follows all schedules. While the masks move, `v` keeps its length: the number of entries that
    are kept at the start. As the mask gets sparser, its last values stand for masked entries. The
    forward pass replaces them by the held values, so that their gradients are zero.

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
    follows = "all masks"

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            if w.weight.constrained:
                return f"{w.weight.name}: a constraint needs the whole weight, not its kept values"
        return None

    def bind(self) -> Binding:
        return Binding(
            layout=_kept_positions,
            padded=_kept_positions,
            keep=lambda held, m: held,
            init=lambda w, m, h: places.gather(w, m),
            substitute=places.scatter,
        )
