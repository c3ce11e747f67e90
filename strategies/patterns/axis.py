"""The `axis` pattern: whole slices along any axis, such as filters, channels or attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import (
    Pattern,
    Shapes,
    check_indices,
    check_sparsity,
    kept_units,
)
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Axis(Pattern):
    """Whole slices along one axis: those of `indices`, or `round(sparsity * length)` at random.

    In Keras, the last axis (-1) of a convolution kernel has its filters, and the axis before it
    (-2) its channels. The kernels of the queries, keys and values of a MultiHeadAttention are
    `[inputs, heads, size]`, so axis 1 has the heads. Its output kernel is `[heads, size, outputs]`,
    so axis 0 has them. Give `indices` to mask the same heads in each of these.

    Raises:
        Invalid: The sparsity is outside [0, 1), `indices` is empty, has a negative index or has an
            index twice, or a weight does not have the axis or the index.

    Example:
        >>> heads = Axis(axis=1, indices=(0,))
        >>> mask = heads.masks({"attention/query/kernel": (8, 2, 4)}, seed=0)
        >>> mask["attention/query/kernel"].sum(axis=(0, 2)).tolist()
        [0, 32]
    """

    name: ClassVar[str] = "axis"
    axis: int = -1
    """The axis of the slices; a negative number counts from the last axis."""
    sparsity: float = 0.5
    """Fraction of the slices that is masked, in [0, 1). Ignored if `indices` is given."""
    indices: Sequence[int] | None = None
    """The slices that are masked, counted from 0; None chooses them at random."""

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_indices(self.indices)

    def masks(self, shapes: Shapes, seed: int) -> dict[str, Mask]:
        masks_by_name = {}
        for name, shape in shapes.items():
            axes = len(shape)
            allowed = f"an axis of {name}, which has {axes}"
            require(-axes <= self.axis < axes, "axis", self.axis, allowed)
            of = f"length of axis {self.axis} of {name}"
            length = shape[self.axis]
            kept = kept_units(length, self.sparsity, self.indices, seed=seed, name=name, of=of)
            along = [1] * axes
            along[self.axis] = length
            masks_by_name[name] = np.broadcast_to(kept.reshape(along), shape).copy()
        return masks_by_name
